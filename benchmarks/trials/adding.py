"""The adding problem: two marked numbers of a long sequence have to be added."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trials.arms import Arm, Check, Row, Task
from trials.problem import Batch, Made
from trials.verdict import best_of, successes

LENGTH = 200


def draw(random: np.random.Generator, rows: int, length: int) -> Batch:
    """Return x [B, T, 2], numbers from U[0, 1] and marks, one in each half, and the sum of the marked [B, 1].

    Source: Hochreiter & Schmidhuber 1997, section 5.4, as simplified by Arjovsky, Shah & Bengio 2016, section 5.2.
    """
    values, marks = random.random((rows, length), np.float32), np.zeros((rows, length), np.float32)
    half, row = length // 2, np.arange(rows)
    marks[row, random.integers(0, half, rows)] = 1
    marks[row, random.integers(half, length, rows)] = 1
    x = np.stack([values, marks], 2)
    return Batch(torch.from_numpy(x), torch.from_numpy((values * marks).sum(1, keepdims=True)))


@dataclass(frozen=True)
class Adding(Made):
    """Mean squared error; always answering 1 gives the variance of a sum of two uniform numbers, 1/6."""

    length: int = LENGTH

    about: ClassVar[str] = "adding problem"
    figure: ClassVar[str] = "MSE"
    chance: ClassVar[float | None] = 1 / 6

    @property
    def sizes(self) -> tuple[int, int]:
        return 2, 1

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows, length=self.length)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return F.mse_loss(prediction, batch.y, reduction="sum"), len(batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_GATED = {"epochs": 100, "lr": 3e-3, "optimizer": "adam", "clip_norm": 1.0}
# Identity recurrence is stable at small rates only: a step of Adam moves the spectral radius by up to lr × units.
_PLAIN = {"epochs": 250, "lr": 1e-4, "optimizer": "adam", "clip_norm": 10.0}
TASK = Task(
    Adding(steps=100, batch=16, goal=0.01),
    (
        Arm("tanh RNN", "rnn", settings=_PLAIN),
        Arm("tanh RNN, larger rate", "rnn", settings=_GATED),
        Arm("IRNN", "rnn", inside={"activation": "relu", "init": "identity"}, settings=_PLAIN),
        Arm("GRU", "gru", settings=_GATED),
        Arm("LSTM", settings=_GATED),
        Arm("LSTM, chrono", inside={"init": f"chrono:{LENGTH}"}, settings=_GATED),
        Arm("LSTM, forget 1", inside={"init": "forget"}, settings=_GATED),
    ),
    (
        Row("identity initialisation (IRNN)", "tanh RNN", "IRNN"),
        Row("gates: GRU", "tanh RNN, larger rate", "GRU"),
        Row("chrono initialisation", "LSTM", "LSTM, chrono"),
        Row("forget-gate bias 1", "LSTM", "LSTM, forget 1"),
    ),
    (
        Check("the tanh RNN stays at the baseline: MSE > 0.15", "tanh RNN", lambda r: best_of(r, min) > 0.15),
        *(
            Check(f"{arm}: MSE < 0.01 in at least 4 of 5 seeds", arm, lambda r: successes(r) >= 0.8)
            for arm in ("IRNN", "GRU", "LSTM, chrono")
        ),
    ),
)
