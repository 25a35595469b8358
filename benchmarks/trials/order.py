"""Temporal order: in which order did two symbols come, a long time ago?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trials.arms import Arm, Row, Task
from trials.problem import Batch, Made, one_hot, right_classes

A, SYMBOLS = 4, 6


def draw(random: np.random.Generator, rows: int, length: int) -> Batch:
    """Return x [B, T, 6], one-hot, and the order as a class [B]: AA, AB, BA, BB.

    A or B stands in the second tenth and A or B in the fifth, one of four other symbols everywhere else. Source:
    Pascanu, Mikolov & Bengio 2013, section 4.1.1, after Hochreiter & Schmidhuber 1997, task 6a.
    """
    symbols, row = random.integers(0, A, (rows, length)), np.arange(rows)
    first, second = random.integers(0, 2, rows), random.integers(0, 2, rows)
    symbols[row, random.integers(length // 10, 2 * length // 10, rows)] = A + first
    symbols[row, random.integers(4 * length // 10, 5 * length // 10, rows)] = A + second
    return Batch(one_hot(symbols, SYMBOLS), torch.from_numpy(2 * first + second))


@dataclass(frozen=True)
class Order(Made):
    """The share of orders told right."""

    length: int = 50

    about: ClassVar[str] = "temporal order"
    figure: ClassVar[str] = "accuracy"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    chance: ClassVar[float | None] = 1 / 4

    @property
    def sizes(self) -> tuple[int, int]:
        return SYMBOLS, 4

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows, length=self.length)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return F.cross_entropy(prediction, batch.y, reduction="sum"), len(batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        return right_classes(prediction, batch.y)


_TRAINED = {"epochs": 25, "lr": 0.1, "optimizer": "sgd"}
_CELL = {"cell": "rnn", "hidden": 50, "inside": {"init": "orthogonal"}}
TASK = Task(
    Order(steps=200, batch=20, goal=0.99),
    (
        Arm("tanh RNN, SGD", **_CELL, settings=_TRAINED),
        Arm("clipped by norm", **_CELL, settings={**_TRAINED, "clip_norm": 1.0}),
        Arm("clipped by unit (AGC)", **_CELL, settings={**_TRAINED, "clip_adaptive": 0.1}),
        Arm("clipped by quantile (AutoClip)", **_CELL, settings={**_TRAINED, "clip_quantile": 0.1}),
        Arm("clipped by norm, uniform", "rnn", 50, settings={**_TRAINED, "clip_norm": 1.0}),
        Arm("clipped by norm, uniform, Ω", "rnn", 50, settings={**_TRAINED, "clip_norm": 1.0, "omega": 2.0}),
    ),
    (
        Row("clipping by norm", "tanh RNN, SGD", "clipped by norm"),
        Row("adaptive clipping (AGC)", "tanh RNN, SGD", "clipped by unit (AGC)"),
        Row("AutoClip", "tanh RNN, SGD", "clipped by quantile (AutoClip)"),
        Row("orthogonal initialisation", "clipped by norm, uniform", "clipped by norm"),
        Row(
            "Ω, against vanishing gradients",
            "clipped by norm, uniform",
            "clipped by norm, uniform, Ω",
            "up to 200 steps: 100 % of trials (Pascanu, Mikolov & Bengio 2013) [M]",
        ),
    ),
    (),
)
