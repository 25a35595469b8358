"""Symbols in noise, for how long and where is not said: which, in which order?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from tidegate.tasks.ctc import best_path, ctc_loss
from trials.arms import Arm, Row, Task
from trials.network import Network
from trials.problem import Batch, Made, padded, tokens_loss

SYMBOLS, STEPS = 5, 40
"""Symbols are 1 … 5; 0 is the blank."""


def draw(random: np.random.Generator, rows: int) -> Batch:
    """Return x [B, 40, 5] and 3 to 6 symbols [B, S], 0 behind the last.

    Each is heard for 2 to 4 steps, in its place of as many as there are symbols; the rest is noise, as loud.
    """
    x, said = random.normal(size=(rows, STEPS, SYMBOLS)).astype(np.float32), []
    for row in range(rows):
        symbols = random.integers(1, SYMBOLS + 1, random.integers(3, 7))
        width = STEPS // len(symbols)
        for place, symbol in enumerate(symbols):
            length = random.integers(2, 5)
            begin = place * width + random.integers(0, width - length)
            x[row, begin : begin + length, symbol - 1] += 3.0
        said.append(symbols)
    return Batch(torch.from_numpy(x), torch.from_numpy(padded(said, 0)[0]))


def edits(said: list[int], truth: list[int]) -> int:
    """Return how many symbols have to be put in, taken out or changed to make one of the other (Levenshtein)."""
    before = list(range(len(truth) + 1))
    for count, symbol in enumerate(said, 1):
        now = [count]
        for place, other in enumerate(truth):
            now.append(min(before[place] + (symbol != other), before[place + 1] + 1, now[place] + 1))
        before = now
    return before[-1]


class Even(Network):
    """A network that is trained step by step, as if each symbol of a target lasted as long as the others."""

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        """Return the sum of losses and how many were summed."""
        if not self.training:
            return super().loss(batch, prediction)
        places = torch.arange(STEPS) * (batch.y > 0).sum(1, keepdim=True) // STEPS
        return tokens_loss(prediction, batch.y.gather(1, places))


@dataclass(frozen=True)
class Unaligned(Made):
    """Edits that the best path needs to be the target, for each of its symbols."""

    about: ClassVar[str] = "symbols in noise, their places unknown"
    figure: ClassVar[str] = "label error rate"
    per_step: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int, int]:
        return SYMBOLS, SYMBOLS + 1

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows)

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        layer = tg.nn.Recurrent(cell(SYMBOLS, hidden, **inside), bidirectional=True)
        return (Even if around.get("even") else Network)(self, layer, SYMBOLS + 1)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        total, count = ctc_loss(prediction, batch.y, target_lengths=(batch.y > 0).sum(1))
        return total, int(count)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        heard, counts = best_path(prediction)[:2]
        pairs = [(tokens[:count].tolist(), truth[truth > 0].tolist())
                 for tokens, count, truth in zip(heard, counts, batch.y, strict=True)]  # fmt: skip
        return float(sum(edits(*pair) for pair in pairs)), sum(len(truth) for _, truth in pairs)


_TRAINED = {"epochs": 12, "lr": 5e-3, "optimizer": "adam", "clip_norm": 1.0}
TASK = Task(
    Unaligned(steps=50),
    (
        Arm("GRU, targets spread evenly", "gru", 32, around={"even": True}, settings=_TRAINED),
        Arm("GRU, CTC", "gru", 32, settings=_TRAINED),
    ),
    (
        Row(
            "CTC",
            "GRU, targets spread evenly",
            "GRU, CTC",
            "TIMIT, label error: hybrid with HMM 33.8, CTC 30.5 % (Graves et al. 2006) [M]",
        ),
    ),
)
