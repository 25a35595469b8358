"""Long short-term memory with exponential gates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, exp, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import choice


@CELLS.add("slstm")
class SLSTM(Cell):
    """The scalar LSTM of xLSTM: exponential gates, a normaliser n, and a stabiliser m that changes no value.

        ĩ, f̃, z̃, õ = W_• x + U_• h + b_•
        m' = max(log f + m, ĩ)      log f = log σ(f̃), or f̃
        i = exp(ĩ − m')             f = exp(log f + m − m')
        c' = f⊙c + i⊙tanh(z̃)        n' = f⊙n + i
        h' = σ(õ)⊙c'/n'

    `forget="sigmoid"` is log σ(f̃), `forget="exp"` is f̃. c·exp(m) and n·exp(m) are the paper's c and n without
    the stabiliser. A state that is given must have n > 0, or c = n = 0.

    Source: Beck et al. 2024 (2405.04517), equations 8 to 17. Deviations: one head, so U_• is full and not
    block-diagonal; no block around it (convolution, projections); n' is at least the smallest normal number; two
    bias vectors. One rate of zoneout keeps c, n and m apart from each other: give `zoneout=(rate, 0, 0, 0)`.
    """

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")

    def __init__(self, input_size: int, hidden_size: int, *, forget: str = "sigmoid", **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.forget = choice(self, "forget", forget, ("sigmoid", "exp"))

    def step(  # type: ignore[override]
        self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        i, f, z, o = self.gate(x, h)
        kept = (f if self.forget == "exp" else -F.softplus(-f)) + m
        m = torch.maximum(kept, i)
        i, f = exp(i - m), exp(kept - m)
        c = f * c + i * self.candidate(tanh(z))
        n = f * n + i
        return sigmoid(o) * c / torch.clamp(n, min=torch.finfo(n.dtype).tiny), c, n, m
