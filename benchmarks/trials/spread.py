"""A series whose noise grows and shrinks: what comes next, and how far off may it be?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from tidegate.tasks.readings import Continuous
from trials.arms import Arm, Row, Task
from trials.network import Network
from trials.problem import Batch, Made, Problem

STEPS, MEMORY, DEGREES = 60, 0.8, 4


def draw(random: np.random.Generator, rows: int) -> Batch:
    """Return x [B, 60, 1] and what comes next: `x_t = 0.8 x_{t−1} + exp(s_t) e_t`.

    s goes up and down as a sine, twice to four times in 60 steps and from −1 to 1; e is Student's t of 4 degrees.
    """
    turns, begin = random.uniform(2, 4, (rows, 1)), random.uniform(0, 2 * np.pi, (rows, 1))
    scale = np.exp(np.sin(begin + turns * 2 * np.pi * np.arange(STEPS + 1) / STEPS))
    noise = scale * random.standard_t(DEGREES, (rows, STEPS + 1))
    x = np.zeros((rows, STEPS + 1), np.float32)
    for step in range(STEPS + 1):
        x[:, step] = noise[:, step] + (MEMORY * x[:, step - 1] if step else 0)
    whole = torch.from_numpy(x)[..., None]
    return Batch(whole[:, :-1], whole[:, 1:])


class Forecaster(Network):
    """A network that gives a distribution of each number, with `still` of one spread for all."""

    def __init__(self, problem: Problem, layer: nn.Module, reading: Continuous, *, still: bool) -> None:
        super().__init__(problem, layer, 1 if still else reading.size)
        self.reading = reading
        self.spread = nn.Parameter(torch.zeros(reading.size - 1)) if still else None

    def forward(self, batch: Batch) -> Tensor:
        """Return −ln f(y) of each number that came [B, T, 1]."""
        raw = super().forward(batch)[..., None, :]
        if self.spread is not None:
            raw = torch.cat([raw, self.spread.expand(*raw.shape[:-1], -1)], -1)
        return -self.reading.law(raw).log_prob(batch.y)


@dataclass(frozen=True)
class Spread(Made):
    """−ln f(y) of a number, nats."""

    about: ClassVar[str] = "a series whose noise grows and shrinks"
    figure: ClassVar[str] = "NLL"
    per_step: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int, int]:
        return 1, 1

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows)

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        layer = tg.nn.Recurrent(cell(1, hidden, **inside))
        return Forecaster(self, layer, Continuous(around["law"], ()), still=around.get("still", False))

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:  # noqa: ARG002
        return prediction.sum(), prediction.numel()

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_TRAINED = {"epochs": 20, "lr": 5e-3, "optimizer": "adam", "clip_norm": 1.0}
TASK = Task(
    Spread(steps=50),
    (
        Arm("Gaussian, one spread", "gru", 32, around={"law": "gaussian", "still": True}, settings=_TRAINED),
        Arm("Gaussian", "gru", 32, around={"law": "gaussian"}, settings=_TRAINED),
        Arm("Student's t", "gru", 32, around={"law": "student_t"}, settings=_TRAINED),
    ),
    (
        Row("a spread for each number", "Gaussian, one spread", "Gaussian"),
        Row("Student's t", "Gaussian", "Student's t"),
    ),
)
