"""A task's model, as the training loop takes it: it predicts, has a loss, and gathers its figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tidegate.nn import Regulariser
from tidegate.shapes import last_real_step

if TYPE_CHECKING:
    from trials.problem import Batch, Problem


class Judged(nn.Module):
    """A model whose loss and figure are its problem's."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        """Return the sum of losses and how many were summed."""
        return self.problem.loss(batch, prediction)

    def metrics(self) -> Figure:
        """Return a fresh accumulator."""
        return Figure(self.problem)

    def regulariser(self, **weights: float) -> Regulariser:
        """Return what the loop may add to the loss."""
        return Regulariser(self, **weights)


class Network(Judged):
    """Recurrent layers and a linear head, on the last real step or on every step."""

    def __init__(self, problem: Problem, layer: nn.Module, outputs: int) -> None:
        super().__init__(problem)
        self.layer = layer
        self.head = nn.Linear(layer.output_size, outputs)

    def forward(self, batch: Batch) -> Tensor:
        """Return [B, T, outputs] or [B, outputs]."""
        y, _ = self.layer(batch.x, lengths=batch.lengths)
        return self.head(y if self.problem.per_step else last_real_step(y, batch.lengths))


class Speaker(Judged):
    """Tokens in, a score for each token that may follow."""

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        super().__init__(problem)
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Return logits [B, T, tokens]."""
        return self.model(batch.x)[0]


class Figure:
    """The problem's figure: sums and counts over batches, divided once."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.total, self.count = problem, 0.0, 0
        self.better = {problem.figure: problem.better}

    def update(self, batch: Any, prediction: Tensor) -> None:
        """Add a batch."""
        with torch.no_grad():
            total, count = self.problem.score(batch, prediction)
        self.total, self.count = self.total + total, self.count + count

    def compute(self) -> dict[str, float]:
        """Return the figure by its name."""
        return {self.problem.figure: self.total / self.count}
