"""Evaluation: what a model predicts for every batch of a loader, and its figures over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.errors import DataError, TidegateError
from tidegate.train.carry import Carry


def predictions(model: nn.Module, loader: Any) -> Iterator[tuple[Any, Tensor]]:
    """Yield every batch, on the model's device, with its prediction; the model is left in evaluation mode."""
    device = next(model.parameters()).device
    model.eval()
    carry = Carry(model)
    for batch in loader.batches(0):
        with torch.inference_mode():
            there = batch if device.type == "cpu" else batch.to(device)
            prediction = carry(model, there)
        yield there, prediction


def evaluate(model: Any, loader: Any, doing: str) -> tuple[dict[str, float], Any]:
    """Return the mean loss with the model's metrics, sums and counts divided once, and their accumulator.

    Raises `DataError` where no target has a value, `TidegateError` where the loss is not finite.
    """
    total, count, metrics = 0.0, 0, model.metrics()
    for batch, prediction in predictions(model, loader):
        with torch.inference_mode():
            loss, n = model.loss(batch, prediction)
            metrics.update(batch, prediction)
        total, count = total + float(loss), count + int(n)
    if not count:
        raise DataError(
            doing,
            expected="targets to compare with",
            got="only missing ones",
            hint="give rows whose target is known",
        )
    if not math.isfinite(total):
        raise TidegateError(
            doing, expected="a finite loss", got=str(total), hint="look for extreme values; a lower learning rate"
        )
    return {"loss": total / count, **metrics.compute()}, metrics
