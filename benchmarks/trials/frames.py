"""A digit that moves over a torus: what goes out on one side comes in on the other. Which frame comes next?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell, ConvLSTM
from tidegate.cells.conv import Convolutional
from trials.arms import Arm, Row, Task
from trials.images import Part, digits
from trials.network import Judged
from trials.problem import Batch, Made, Problem

SIDE, SHOWN = 12, 10


def draw(random: np.random.Generator, rows: int, part: Part) -> Batch:
    """Return frames [B, T, 1, 12, 12] in 0..1 and those that follow: digits that move on by −1, 0 or 1 each way.

    After Srivastava, Mansimov & Salakhutdinov 2015, section 4.1, whose digits bounce off the sides.
    """
    images, _ = part
    chosen = images[random.integers(0, len(images), rows)].reshape(rows, 8, 8).astype(np.float32) / 255
    still = np.zeros((rows, SIDE, SIDE), np.float32)
    still[:, :8, :8] = chosen
    place, speed = random.integers(0, SIDE, (rows, 2)), random.integers(-1, 2, (rows, 2))
    film = np.zeros((rows, SHOWN + 1, 1, SIDE, SIDE), np.float32)
    for row in range(rows):
        for step in range(SHOWN + 1):
            film[row, step, 0] = np.roll(still[row], tuple(place[row] + step * speed[row]), (0, 1))
    whole = torch.from_numpy(film)
    return Batch(whole[:, :-1], whole[:, 1:])


class Film(Judged):
    """Frames in, for every place the logit of its brightness in the frame that follows."""

    def __init__(self, problem: Problem, layer: tg.nn.Recurrent, head: nn.Module, *, flat: bool) -> None:
        super().__init__(problem)
        self.layer, self.head, self.flat = layer, head, flat

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, T, 1, 12, 12]."""
        y, _ = self.layer(batch.x.flatten(2) if self.flat else batch.x)
        if self.flat:
            return self.head(y).reshape(batch.x.shape)
        return self.head(y.flatten(0, 1)).reshape(batch.x.shape)


@dataclass(frozen=True)
class Frames(Made):
    """Cross-entropy of a place's brightness, nats, from the third frame on: two show where a digit is going."""

    about: ClassVar[str] = "a digit that moves over a torus"
    judged: ClassVar[int] = 100
    figure: ClassVar[str] = "nats a place"

    @property
    def sizes(self) -> tuple[int, int]:
        return SIDE * SIDE, SIDE * SIDE

    def source(self, part: str, rows: int) -> partial[Batch]:
        return partial(draw, rows=rows, part=digits()[part])

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        if issubclass(cell, Convolutional):
            layer = tg.nn.Recurrent(cell(1, hidden, size=(SIDE, SIDE), **inside), **around)
            return Film(self, layer, nn.Conv2d(hidden, 1, 1), flat=False)
        places, _ = self.sizes
        layer = tg.nn.Recurrent(cell(places, hidden, **inside), **around)
        return Film(self, layer, nn.Linear(hidden, places), flat=True)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        said, truth = prediction[:, 1:], batch.y[:, 1:]
        return F.binary_cross_entropy_with_logits(said, truth, reduction="sum"), truth.numel()

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_TRAINED = {"epochs": 10, "lr": 5e-3, "optimizer": "adam", "clip_norm": 1.0}
_FRAMES = "Moving MNIST, nats a frame: 4,832.5 to 3,670.9 (Shi et al. 2015) [M]"
TASK = Task(
    Frames(steps=50, batch=16),
    (
        Arm("LSTM of flat frames", hidden=128, settings=_TRAINED),
        Arm("ConvLSTM", ConvLSTM, 12, settings=_TRAINED),
        Arm("ConvLSTM, circular", ConvLSTM, 12, inside={"padding_mode": "circular"}, settings=_TRAINED),
    ),
    (
        Row("convolutional recurrence", "LSTM of flat frames", "ConvLSTM", _FRAMES),
        Row("circular convolution", "ConvLSTM", "ConvLSTM, circular"),
    ),
)
