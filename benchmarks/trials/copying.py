"""The copy problem: ten symbols have to be said again after a long silence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from trials.arms import Arm, Check, Row, Task
from trials.problem import Batch, Made, one_hot, tokens_loss
from trials.verdict import successes

LENGTH, SYMBOLS, SAID = 100, 8, 10
BLANK, NOW = SYMBOLS, SYMBOLS + 1
CHANCE = SAID * math.log(SYMBOLS) / (LENGTH + 2 * SAID)


def draw(random: np.random.Generator, rows: int, length: int) -> Batch:
    """Return x [B, T + 20, 10], one-hot, and the symbols to say [B, T + 20].

    Read: 10 of 8 symbols, T − 1 blanks, the mark, 10 blanks. Said: T + 10 blanks, then the symbols. Who says blanks,
    then anything, has a mean cross-entropy of `10 ln 8 / (T + 20)`. Source: Arjovsky, Shah & Bengio 2016, section 5.1.
    """
    symbols = random.integers(0, SYMBOLS, (rows, SAID))
    read = np.full((rows, length + 2 * SAID), BLANK)
    said = read.copy()
    read[:, :SAID], read[:, length + SAID - 1], said[:, -SAID:] = symbols, NOW, symbols
    return Batch(one_hot(read, SYMBOLS + 2), torch.from_numpy(said))


@dataclass(frozen=True)
class Copying(Made):
    """Mean cross-entropy of a step, nats; half of chance is the goal."""

    length: int = LENGTH

    about: ClassVar[str] = "copy problem"
    judged: ClassVar[int] = 100
    figure: ClassVar[str] = "cross-entropy"
    per_step: ClassVar[bool] = True
    chance: ClassVar[float | None] = CHANCE

    @property
    def sizes(self) -> tuple[int, int]:
        return SYMBOLS + 2, SYMBOLS + 1

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows, length=self.length)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return tokens_loss(prediction, batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_TRAINED = {"epochs": 80, "lr": 1e-2, "optimizer": "adam", "clip_norm": 1.0}
TASK = Task(
    Copying(steps=100, goal=CHANCE / 2),
    (
        Arm("LSTM", hidden=128, settings=_TRAINED),
        Arm("LSTM, chrono", hidden=128, inside={"init": f"chrono:{LENGTH + SAID}"}, settings=_TRAINED),
    ),
    (Row("chrono initialisation", "LSTM", "LSTM, chrono"),),
    (
        Check("the chrono LSTM ends under half of chance", "LSTM, chrono", lambda r: successes(r) >= 0.8),
        Check("the plain LSTM does not", "LSTM", lambda r: successes(r) <= 0.2),
    ),
)
