"""Curves run through at an uneven pace: which curve is it? What stands before or behind the recurrent layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from trials.arms import Arm, Row, Task
from trials.network import Network
from trials.problem import Batch, Made, Problem, padded, right_classes

CLASSES, WAVES, LONGEST, SHORT, NOISE = 12, 4, 300, 24, 0.3


@cache
def shapes() -> np.ndarray:
    """Return the weights [CLASSES, WAVES] of `sin(π k u)`, k = 1 …, over the way u from 0 to 1."""
    return np.random.default_rng(0).normal(size=(CLASSES, WAVES)).astype(np.float32)


def draw(random: np.random.Generator, rows: int, longest: int) -> Batch:
    """Return noisy curves [B, T, 1] of half to all of `longest` steps, each on its way at its own pace, and classes."""
    y, each = random.integers(0, CLASSES, rows), []
    for kind in y:
        length = random.integers(longest // 2, longest + 1)
        way = np.cumsum(random.gamma(2.0, size=8)[np.arange(length) * 8 // length])
        waves = np.sin(np.pi * np.outer(way / way[-1], np.arange(1, WAVES + 1)))
        each.append((waves @ shapes()[kind] + NOISE * random.normal(size=length))[:, None].astype(np.float32))
    x, lengths = padded(each, 0.0)
    return Batch(torch.from_numpy(x), torch.from_numpy(y), lengths)


class Adapted(Network):
    """A network whose sequences are given another length first."""

    def __init__(self, problem: Problem, adapt: tg.nn.Adapt, layer: nn.Module, outputs: int) -> None:
        super().__init__(problem, layer, outputs)
        self.adapt = adapt

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, outputs]."""
        x, lengths = self.adapt(batch.x, SHORT, lengths=batch.lengths)
        return super().forward(Batch(x, batch.y, lengths))


class Layers(tg.nn.Stack):
    """A stack that says how wide its output is."""

    def __init__(self, size: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.output_size = size


@dataclass(frozen=True)
class Curves(Made):
    """The share of curves told right. `around`: how lengths are adapted, and what stands before or behind the layer."""

    about: ClassVar[str] = "curves at an uneven pace"
    figure: ClassVar[str] = "accuracy"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    chance: ClassVar[float | None] = 1 / CLASSES

    @property
    def sizes(self) -> tuple[int, int]:
        return 1, CLASSES

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows, longest=LONGEST)

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        inputs, outputs = self.sizes
        if around.get("convolved"):
            read = tg.nn.Convolution(inputs, 16, width=9)
            return Network(self, Layers(hidden, read, tg.nn.Recurrent(cell(16, hidden, **inside))), outputs)
        layer = tg.nn.Recurrent(cell(inputs, hidden, **inside))
        if around.get("attended"):
            return Network(self, Layers(hidden, layer, tg.nn.TransformerBlock(hidden)), outputs)
        if how := around.get("adapt"):
            return Adapted(self, tg.nn.Adapt(inputs, how), layer, outputs)
        return Network(self, layer, outputs)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return F.cross_entropy(prediction, batch.y, reduction="sum"), len(batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        return right_classes(prediction, batch.y)


_TRAINED = {"epochs": 20, "lr": 5e-3, "optimizer": "adam", "clip_norm": 1.0}
_WITH: dict[str, tuple[str, dict[str, Any]]] = {
    "length adapted by resampling": ("resampled", {"adapt": "resample"}),
    "length adapted by pooling": ("pooled", {"adapt": "pool"}),
    "length adapted by attention": ("attended to", {"adapt": "attend"}),
    "convolution before": ("convolved", {"convolved": True}),
    "Transformer block behind": ("with a Transformer block", {"attended": True}),
}
_LARGE = "GRU, as many parameters"
TASK = Task(
    Curves(steps=50, goal=0.95),
    (
        Arm("GRU", "gru", 32, settings=_TRAINED),
        *(Arm(f"GRU, {name}", "gru", 32, around=around, settings=_TRAINED) for name, around in _WITH.values()),
        Arm(_LARGE, "gru", 70, settings=_TRAINED),
    ),
    tuple(
        Row(technique, _LARGE if "attended" in around else "GRU", f"GRU, {name}")
        for technique, (name, around) in _WITH.items()
    ),
)
