"""Classes: one per sequence, several per sequence, or one per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tidegate.data.batch import IGNORED, Batch
from tidegate.tasks.base import Better, Classes, Task, as_numpy, class_array, one_per, target_of
from tidegate.tasks.long_tail import ClassLoss, LabelLoss


class ConfusionCounts:
    """Counts of (true class, predicted class), [C, C], from which every figure is derived."""

    better: ClassVar[Better] = {"accuracy": "higher", "balanced_accuracy": "higher", "macro_f1": "higher"}

    def __init__(self, classes: Classes, scores: Callable[[Tensor], Tensor] = lambda prediction: prediction) -> None:
        self.classes, self.scores = classes, scores
        self.matrix = torch.zeros(len(classes), len(classes), dtype=torch.int64)

    def update(self, batch: Batch, prediction: Tensor) -> None:
        truth, guess = target_of(batch).flatten(), self.scores(prediction).argmax(-1).flatten()
        real = truth != IGNORED
        size = len(self.classes)
        pairs = (truth[real] * size + guess[real]).cpu()
        self.matrix += torch.bincount(pairs, minlength=size * size).reshape(size, size)

    def per_class(self) -> dict[str, np.ndarray]:
        """Return precision, recall, F1 and support, each [C]; 0 where a class was never guessed or never true."""
        hits = self.matrix.diagonal().double()
        guessed, true = self.matrix.sum(0).double(), self.matrix.sum(1).double()
        return {
            "precision": as_numpy(hits / guessed.clamp(min=1)),
            "recall": as_numpy(hits / true.clamp(min=1)),
            "f1": as_numpy(2 * hits / (guessed + true).clamp(min=1)),
            "support": as_numpy(self.matrix.sum(1)),
        }

    def compute(self) -> dict[str, float]:
        """Return accuracy, and macro figures over the classes that occur or were guessed."""
        figures = self.per_class()
        present = as_numpy(self.matrix.sum(0) + self.matrix.sum(1)) > 0
        occurs = figures["support"] > 0
        total = max(int(self.matrix.sum()), 1)
        return {
            "accuracy": float(self.matrix.diagonal().sum()) / total,
            "balanced_accuracy": float(figures["recall"][occurs].mean()) if occurs.any() else 0.0,
            "macro_f1": float(figures["f1"][present].mean()) if present.any() else 0.0,
        }


class Classification(Task):
    """One of several classes per sequence. Predictions are logits [B, C]; the loss is `objective`, in nats."""

    task: Literal["classification"] = "classification"
    target: str
    classes: Classes
    objective: ClassLoss = ClassLoss()

    @property
    def outputs(self) -> int:
        return len(self.classes)

    @property
    def cosines(self) -> bool:
        return self.objective.loss == "ldam"

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return self.objective(prediction, target_of(batch))

    def metrics(self) -> ConfusionCounts:
        return ConfusionCounts(self.classes, self.objective.scores)

    def decode(self, prediction: Tensor) -> dict[str, np.ndarray]:
        """Return the likeliest class, and each class's probability in `probability_<class>`."""
        probability = as_numpy(self.objective.scores(prediction.double()).softmax(-1))
        columns = {self.target: class_array(self.classes)[probability.argmax(-1)]}
        columns.update({f"probability_{c}": probability[..., i] for i, c in enumerate(self.classes)})
        return columns


class Tagging(Classification):
    """One of several classes per step. Predictions are logits [B, T, C]; steps without a tag are left out."""

    task: Literal["tagging"] = "tagging"  # type: ignore[assignment]

    @property
    def per_step(self) -> bool:
        return True


class LabelCounts:
    """True and false positives and negatives per label, each [C]."""

    better: ClassVar[Better] = {"accuracy": "higher", "exact_match": "higher", "macro_f1": "higher"}

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.hits, self.guessed, self.true, self.agree = (torch.zeros(len(labels), dtype=torch.int64) for _ in range(4))
        self.exact, self.count = 0, 0

    def update(self, batch: Batch, prediction: Tensor) -> None:
        truth, guess = target_of(batch).cpu() > 0.5, prediction.cpu() > 0
        self.hits += (truth & guess).sum(0)
        self.guessed += guess.sum(0)
        self.true += truth.sum(0)
        self.agree += (truth == guess).sum(0)
        self.exact += int((truth == guess).all(1).sum())
        self.count += truth.shape[0]

    def per_label(self) -> dict[str, np.ndarray]:
        """Return precision, recall and F1, support and how often each was guessed, [C]; 0 where a ratio is 0 / 0."""
        hits, guessed, true = self.hits.double(), self.guessed.double(), self.true.double()
        return {
            "precision": as_numpy(hits / guessed.clamp(min=1)),
            "recall": as_numpy(hits / true.clamp(min=1)),
            "f1": as_numpy(2 * hits / (guessed + true).clamp(min=1)),
            "support": as_numpy(self.true),
            "guessed": as_numpy(self.guessed),
        }

    def compute(self) -> dict[str, float]:
        count = max(self.count, 1)
        return {
            "accuracy": float(self.agree.double().mean()) / count,
            "exact_match": self.exact / count,
            "macro_f1": float(self.per_label()["f1"].mean()),
        }


class MultiLabel(Task):
    """Any of several yes/no labels per sequence. Predictions are logits [B, C]; the loss is a mean over labels."""

    task: Literal["multilabel"] = "multilabel"
    targets: tuple[str, ...]
    objective: LabelLoss = LabelLoss()

    @property
    def outputs(self) -> int:
        return len(self.targets)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        target = target_of(batch)
        return self.objective(prediction, target)[0] / self.outputs, one_per(target)

    def metrics(self) -> LabelCounts:
        return LabelCounts(self.targets)

    def decode(self, prediction: Tensor) -> dict[str, np.ndarray]:
        probability = as_numpy(prediction.double().sigmoid())
        columns = {name: probability[:, i] > 0.5 for i, name in enumerate(self.targets)}
        columns.update({f"probability_{name}": probability[:, i] for i, name in enumerate(self.targets)})
        return columns
