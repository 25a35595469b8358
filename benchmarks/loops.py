"""Cells that torch.nn has no layer for against three PyTorch loops, which read their input in different ways.

    python benchmarks/loops.py [--sizes 32x64,32x128] [--rounds 11]

- whole step: all of a step is done on `x[:, t]`, the input product too, as a loop over a cell does;
- indexing: the input product of all steps comes first, and each step reads its part, `projected[:, t]`;
- unbind: the same, taken apart once by `projected.unbind(1)`, as the loop of `tidegate bench` does.

The gradient of each `[:, t]` is a tensor of zeros as large as all steps, that of `unbind` one tensor for all. Results
are compared with the reference, then training is timed, in turns: forward and backward to all weights and the input,
which in the last column asks for no gradient.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from cells import TwoSpeedCase
from tidegate.bench.cases import CASES, States
from tidegate.bench.grid import Size, read_sizes
from tidegate.bench.measure import Effort, disagreements, time_in_turns
from tidegate.bench.ops import TORCH
from tidegate.bench.peers import Loop, Tidegate, TorchLoop, draw

NAMES = ("lstm_layer_norm", "lstm_peephole", "gru_reset_before", "lstm_noise", "two_speed")
OURS, WITHOUT = "tidegate", "no dx"


class Indexing(TorchLoop):
    def steps(self, read: dict[str, Tensor], x: Tensor) -> Iterator[States]:
        inputs = self.case.inputs(TORCH, read, x)
        for t in range(x.shape[1]):
            yield tuple(each[:, t] for each in inputs)


class WholeStep(TorchLoop):
    def steps(self, read: dict[str, Tensor], x: Tensor) -> Iterator[States]:
        each_step = [mask.name for mask in self.case.masks if mask.each_step and mask.name in read]
        for t in range(x.shape[1]):
            now = read | {name: read[name][:, t : t + 1] for name in each_step}
            yield tuple(each[:, 0] for each in self.case.inputs(TORCH, now, x[:, t : t + 1]))


LOOPS = {"whole step": WholeStep, "indexing": Indexing, "unbind": TorchLoop}


def compare(name: str, size: Size, rounds: int) -> None:
    """Time one cell at one size and print a line."""
    torch.manual_seed(0)
    case = CASES[name]()
    cell = case.cell(size.hidden)
    x = torch.randn(size.batch, size.steps, size.hidden)
    dy, weights = torch.randn_like(x), dict(cell.named_parameters())
    ours = Tidegate(cell, "auto", x, dy)
    candidates = [ours, *(Loop(case, weights, x, dy, name=name, kind=kind) for name, kind in LOOPS.items())]
    wrong = disagreements(candidates, cell, x, dy, draw(case.masks, x) if case.masks else None)
    if wrong:
        raise SystemExit(f"{name} {size}: {'; '.join(wrong)}")

    def without() -> tuple[Tensor, ...]:
        return torch.autograd.grad(ours.module(x)[0], list(weights.values()), dy)

    found = time_in_turns({c.name: c.timed("train") for c in candidates} | {WITHOUT: without}, Effort(rounds))
    ratios = "".join(f"{found[loop] / found[OURS]:12.1f}" for loop in LOOPS)
    start = f"{name:18}{'x'.join(map(str, size)):>12}{found[OURS]:10.2f} ms"
    print(f"{start}{ratios}{found[WITHOUT] / found[OURS]:10.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="32x64,32x128")
    parser.add_argument("--rounds", type=int, default=11)
    chosen = parser.parse_args()
    CASES.add("two_speed")(TwoSpeedCase)
    torch.set_num_threads(2)
    print("training, medians in turns; then the time of each over Tidegate's")
    heads = "".join(f"{loop:>12}" for loop in LOOPS)
    print(f"{'cell':18}{'BxHxT':>12}{OURS:>13}{heads}{WITHOUT:>10}")
    for name in NAMES:
        for size in read_sizes(chosen.sizes):
            compare(name, size, chosen.rounds)


if __name__ == "__main__":
    main()
