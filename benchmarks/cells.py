"""`tidegate bench` with one cell more, defined here: what a cell of one's own costs, which no library has.

python benchmarks/cells.py --cells two_speed,lstm --sizes 32x64
"""

from __future__ import annotations

import sys

import torch

import tidegate as tg
from tidegate.bench.cases import CASES, Arrays, Case, States
from tidegate.bench.ops import Ops
from tidegate.cli import main


class TwoSpeed(tg.Cell):
    """A quick state h over a slow one s that follows it.

    u, v = σ(W x + U h + b)    s' = (1−v)⊙s + v⊙h
    n = tanh(W_n x + U_n h + b_n + s')    h' = (1−u)⊙s' + u⊙n
    """

    gates = ("u", "v", "n")
    states = ("h", "s")

    def step(self, x: torch.Tensor, h: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        u, v, n = self.gate(x, h)
        s = torch.lerp(s, h, torch.sigmoid(v))
        return torch.lerp(s, self.candidate(torch.tanh(n + s)), torch.sigmoid(u)), s


class TwoSpeedCase(Case):
    kind = TwoSpeed

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        h, s = states
        u, v, n = f.split(f.addmm(x[0], h, k["U"]), 3)
        s = f.lerp(s, h, f.sigmoid(v))
        return f.lerp(s, f.tanh(n + s), f.sigmoid(u)), s


if __name__ == "__main__":
    CASES.add("two_speed")(TwoSpeedCase)
    sys.argv[1:1] = ["bench"]
    main()
