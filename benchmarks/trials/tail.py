"""Digits of which the last ones are rare in training and as frequent as the others in validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from tidegate.data.balance import balanced, balanced_count
from tidegate.tasks.long_tail import ClassLoss, class_balanced_weights
from tidegate.tasks.network import Cosines
from trials.arms import Arm, Row, Task
from trials.images import Digits, Part, digits
from trials.network import Network
from trials.problem import Batch, Passes

RATIO = 50
"""How many times as often the first digit comes as the last."""


@cache
def rare() -> dict[str, Part]:
    """Return the digits with `n_j = n_0 / RATIO^(j/9)` of each class j in training (Cui et al. 2019, section 5)."""
    parts = digits()
    x, y = parts["train"]
    most = int(np.bincount(y).min())
    kept = [np.flatnonzero(y == j)[: max(round(most / RATIO ** (j / 9)), 1)] for j in range(10)]
    rows = np.concatenate(kept)
    return {"train": (x[rows], y[rows]), "valid": parts["valid"]}


class Weighed(Network):
    """A network that is trained with a loss for classes of unequal frequency, and decides by its scores."""

    def __init__(self, problem: Tail, layer: nn.Module, objective: ClassLoss) -> None:
        super().__init__(problem, layer, problem.sizes[1])
        self.objective = objective
        if objective.loss == "ldam":
            self.head = Cosines(layer.output_size, problem.sizes[1])

    def forward(self, batch: Batch) -> Tensor:
        prediction = super().forward(batch)
        return prediction if self.training else self.objective.scores(prediction)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        if not self.training:
            return super().loss(batch, prediction)
        total, count = self.objective(prediction, batch.y)
        return total, int(count)


@dataclass(frozen=True)
class Tail(Digits):
    """The share of digits told right, all as frequent. `around` holds β of class weights, and `ClassLoss`'s options."""

    about: ClassVar[str] = "digits, the last ones rare"

    def parts(self, data: Path) -> dict[str, Part]:  # noqa: ARG002 - they come with scikit-learn
        return rare()

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        inputs, outputs = self.sizes
        counts = np.bincount(rare()["train"][1], minlength=outputs).tolist()
        beta = around.pop("beta", None)
        weights = () if beta is None else tuple(class_balanced_weights(counts, beta).tolist())
        layer = tg.nn.Recurrent(cell(inputs, hidden, **inside))
        return Weighed(self, layer, ClassLoss(counts=tuple(counts), weights=weights, **around))


@dataclass(frozen=True)
class Evenly(Passes):
    """Passes that take equally many rows of each of some groups."""

    groups: tuple[np.ndarray, ...] = ()

    def rows(self, epoch: int) -> np.ndarray:
        """Return the rows of a pass, in their order."""
        return balanced(self.groups, np.random.default_rng([self.seed, epoch]))


@dataclass(frozen=True)
class Balanced(Tail):
    """The same, trained on each digit equally often (balanced sampling)."""

    def train(self, seed: int, data: Path, most: int | None) -> Evenly:
        passes = super().train(seed, data, most)
        labels = self.parts(data)["train"][1]
        groups = tuple(np.flatnonzero(labels == j) for j in range(10))
        return Evenly(passes.take, balanced_count(groups), passes.batch, seed, passes.most, groups)


_TRAINED = {"epochs": 60, "lr": 3e-3, "optimizer": "adam", "clip_norm": 1.0}
_BY = {
    "class-balanced weights": ({"beta": 0.99}, "CIFAR-10, ratio 50: 74.8 to 79.3 % (Cui et al. 2019) [M]"),
    "focal loss": ({"loss": "focal"}, "CIFAR-10, ratio 50: 74.8 to 76.7 % (Cui et al. 2019) [M]"),
    "LDAM": ({"loss": "ldam"}, "CIFAR-10, ratio 100: 70.4 to 73.4 % (Cao et al. 2019) [M]"),
    "logit adjustment": ({"logit_adjustment": 1.0}, "CIFAR-10, ratio 100: 72.8 to 77.7 % (Menon et al. 2021) [M]"),
    "logit adjustment afterwards": (
        {"logit_adjustment_after": 1.0},
        "CIFAR-10, ratio 100: 72.8 to 77.4 % (Menon et al. 2021) [M]",
    ),
}
TASK = Task(
    Tail(batch=32),
    (
        Arm("GRU", "gru", 32, settings=_TRAINED),
        *(Arm(f"GRU, {name}", "gru", 32, around=around, settings=_TRAINED) for name, (around, _) in _BY.items()),
        Arm("GRU, balanced sampling", "gru", 32, settings=_TRAINED, reads=Balanced(batch=32)),
    ),
    (
        *(Row(name, "GRU", f"GRU, {name}", published) for name, (_, published) in _BY.items()),
        Row("balanced sampling", "GRU", "GRU, balanced sampling"),
    ),
)
