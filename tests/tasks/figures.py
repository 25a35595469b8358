"""A task's loss and metrics over batches of a given size."""

from __future__ import annotations

import torch

from tidegate.data.batch import Batch
from tidegate.tasks.base import Task


def batches(target: torch.Tensor, prediction: torch.Tensor, size: int) -> list[tuple[Batch, torch.Tensor]]:
    empty = torch.zeros(size, 1, 0)
    parts = zip(target.split(size), prediction.split(size), strict=True)
    return [(Batch(empty, empty.long(), torch.ones(len(y)), torch.arange(len(y)), y), p) for y, p in parts]


def figures(task: Task, target: torch.Tensor, prediction: torch.Tensor, size: int) -> dict[str, float]:
    metrics, total, count = task.metrics(), 0.0, 0
    for batch, guess in batches(target, prediction, size):
        loss, n = task.loss(batch, guess)
        total, count = total + float(loss), count + int(n)
        metrics.update(batch, guess)
    return {"loss": total / count, **metrics.compute()}
