"""Forecasts: several steps ahead, several columns, with quantiles."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tidegate.data.batch import Batch
from tidegate.tasks.base import Better, Task, as_numpy, target_of
from tidegate.tasks.regression import ErrorSums, PointLoss, point_loss


class ForecastSums:
    """Errors of the point forecast, and how often the widest interval holds the truth."""

    def __init__(self, task: Forecasting) -> None:
        self.errors = ErrorSums(task.mean, task.std)
        self.quantiles = task.quantiles
        self.inside, self.count = 0, 0

    @property
    def better(self) -> Better:
        coverage: Better = {"interval_coverage": "higher"} if len(self.quantiles) > 1 else {}
        return {**self.errors.better, **coverage}

    def update(self, batch: Batch, prediction: Tensor) -> None:
        truth = target_of(batch)
        self.errors.add(prediction[..., 0], truth)
        if len(self.quantiles) > 1:
            band = prediction[..., 1:]
            inside = (truth >= band.amin(-1)) & (truth <= band.amax(-1))
            self.inside += int(inside.sum())
            self.count += int((~truth.isnan()).sum())

    def compute(self) -> dict[str, float]:
        figures = self.errors.compute()
        if self.count:
            figures["interval_coverage"] = self.inside / self.count
        return figures


class Forecasting(Task):
    """Several columns, `horizon` steps ahead (D4).

    Predictions [B, S, C, 1 + Q] are in standard units of the training part: the point forecast, then each quantile.
    Loss = point loss + the mean pinball loss over quantiles (Koenker & Bassett 1978): `max(q e, (q − 1) e)`,
    `e = y − ŷ_q`; a missing truth counts nothing.
    """

    task: Literal["forecasting"] = "forecasting"
    targets: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    horizon: int
    lookback: int
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    point: PointLoss = "mse"

    @property
    def outputs(self) -> int:
        return 1 + len(self.quantiles)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        truth = target_of(batch)
        seen = ~truth.isnan()
        known = torch.where(seen, truth, prediction[..., 0].detach())
        each = point_loss(self.point, prediction[..., 0], known)
        if self.quantiles:
            q = torch.tensor(self.quantiles, device=known.device, dtype=known.dtype)
            error = known[..., None] - prediction[..., 1:]
            each = each + torch.maximum(q * error, (q - 1) * error).mean(-1)
        return (each * seen).sum(), seen.sum()

    def metrics(self) -> ForecastSums:
        return ForecastSums(self)

    def decode(self, prediction: Tensor) -> dict[str, np.ndarray]:
        """Return [B, S] per target: the forecast, and `<target>_q10` … for each quantile (sorted: they never cross)."""
        values = as_numpy(prediction.double())
        values[..., 1:] = np.sort(values[..., 1:], axis=-1)
        columns = {}
        for i, name in enumerate(self.targets):
            original = values[:, :, i] * self.std[i] + self.mean[i]
            columns[name] = original[..., 0]
            for j, q in enumerate(self.quantiles):
                columns[f"{name}_q{100 * q:g}"] = original[..., 1 + j]
        return columns
