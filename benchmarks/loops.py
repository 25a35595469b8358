"""Cells without a layer in torch.nn against two PyTorch loops: `x[:, t]` at each step, and `x.unbind(1)` once.

    python benchmarks/loops.py [--sizes 32x64,32x128] [--rounds 11]

Both have the input product and the biases out of the loop. The gradient of each `x[:, t]` is a tensor of zeros as large
as all steps, that of `unbind` one tensor for all; `tidegate bench` times the latter. Results are compared with the
reference, then training is timed (forward and backward to the input and all weights), in turns.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from cells import TwoSpeedCase
from tidegate.bench.cases import CASES, Case, States
from tidegate.bench.grid import Size, read_sizes
from tidegate.bench.measure import Effort, disagreements, time_in_turns
from tidegate.bench.ops import TORCH
from tidegate.bench.peers import Loop, Tidegate, TorchLoop, TorchModule, draw

NAMES = ("lstm_layer_norm", "lstm_peephole", "gru_reset_before", "lstm_noise", "two_speed")


class IndexingLoop(TorchLoop):
    """`TorchLoop` as it is written most often."""

    def forward(self, x: Tensor) -> tuple[Tensor, States]:
        read = dict(self.weights.items())
        if self.training:
            read |= self.fixed or draw(self.case.masks, x)
        constants = self.case.constants(read)
        states: States = (x.new_zeros(x.shape[0], x.shape[2]),) * len(self.case.kind.states)
        outputs, inputs = [], self.case.inputs(TORCH, read, x)
        for t in range(x.shape[1]):
            states = self.case.step(TORCH, constants, tuple(each[:, t] for each in inputs), states)
            outputs.append(states[0])
        return torch.stack(outputs, 1), states


class Indexing(TorchModule):
    def __init__(self, case: Case, weights: dict[str, Tensor], x: Tensor, dy: Tensor) -> None:
        self._loop = IndexingLoop(case, weights)
        super().__init__("x[:, t]", self._loop, dict(self._loop.weights.items()), x, dy)

    def fix(self, masks: dict[str, Tensor] | None) -> None:
        self._loop.fixed = masks


def compare(name: str, size: Size, rounds: int) -> None:
    """Time one cell at one size and print a line."""
    torch.manual_seed(0)
    case = CASES[name]()
    cell = case.cell(size.hidden)
    x = torch.randn(size.batch, size.steps, size.hidden)
    dy, weights = torch.randn_like(x), dict(cell.named_parameters())
    ours, unbinding, indexing = (
        Tidegate(cell, "auto", x, dy), Loop(case, weights, x, dy), Indexing(case, weights, x, dy)
    )  # fmt: skip
    candidates = {each.name: each for each in (ours, indexing, unbinding)}
    wrong = disagreements([*candidates.values()], cell, x, dy, draw(case.masks, x) if case.masks else None)
    if wrong:
        raise SystemExit(f"{name} {size}: {'; '.join(wrong)}")
    found = time_in_turns({each: c.timed("train") for each, c in candidates.items()}, Effort(rounds))
    shown = "".join(f"{found[each]:10.2f}" for each in candidates)
    ratios = "".join(f"{found[each] / found[ours.name]:10.1f}" for each in (indexing.name, unbinding.name))
    print(f"{name:20}{'x'.join(map(str, size)):>12}{shown}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="32x64,32x128")
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    CASES.add("two_speed")(TwoSpeedCase)
    torch.set_num_threads(2)
    print("milliseconds of training, medians in turns; then each loop's time over Tidegate's")
    print(f"{'cell':20}{'BxHxT':>12}{'tidegate':>10}{'x[:, t]':>10}{'unbind':>10}{'x[:, t]':>10}{'unbind':>10}")
    for name in NAMES:
        for size in read_sizes(chosen.sizes):
            compare(name, size, chosen.rounds)


if __name__ == "__main__":
    main()
