"""Numbers: one or several per sequence."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tidegate.data.batch import Batch
from tidegate.tasks.base import Better, Task, as_numpy, one_per, target_of
from tidegate.tasks.readings import NumberLoss, Reading, make_reading


class ErrorSums:
    """Sums of errors in the target's own units, per target [C]; missing truths are left out."""

    better: ClassVar[Better] = {
        "mae": "lower",
        "rmse": "lower",
        "r2": "higher",
        "scaled_mse": "lower",
        "scaled_mae": "lower",
    }

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean, self.std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
        self.count, self.signed, self.absolute, self.square, self.truth, self.truth_square = (
            torch.zeros(len(mean), dtype=torch.float64) for _ in range(6)
        )

    def update(self, batch: Batch, prediction: Tensor) -> None:
        self.add(prediction, target_of(batch))

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Add scaled predictions and truths, both [..., C]."""
        size = len(self.mean)
        truth, prediction = (
            truth.double().cpu().reshape(-1, size),
            prediction.double().cpu().reshape(-1, size),
        )
        seen = ~truth.isnan()
        error = torch.where(seen, prediction - truth, 0.0)
        known = torch.where(seen, truth, 0.0)
        self.count += seen.sum(0)
        self.signed += error.sum(0)
        self.absolute += error.abs().sum(0)
        self.square += error.square().sum(0)
        self.truth += known.sum(0)
        self.truth_square += known.square().sum(0)

    def per_target(self) -> dict[str, np.ndarray]:
        """Return MAE, RMSE and mean error (prediction − truth) in the target's units and R², each [C].

        A target without any truth is NaN. Where truths are all equal R² is 1 for a perfect guess, else 0.
        """
        count = torch.where(self.count > 0, self.count, torch.nan)
        mse = self.square / count
        variance = self.truth_square / count - (self.truth / count).square()
        flat = torch.where(mse.isnan(), torch.nan, (mse == 0).double())
        r2 = torch.where(variance > 1e-12, 1 - mse / variance.clamp(min=1e-12), flat)
        return {
            "mae": as_numpy(self.absolute / count * self.std),
            "rmse": as_numpy(mse.sqrt() * self.std),
            "mean_error": as_numpy(self.signed / count * self.std),
            "r2": as_numpy(r2),
        }

    def compute(self) -> dict[str, float]:
        """Return MAE and RMSE in the target's units and R², averaged over targets; MSE and MAE in standard units.

        A target without any truth is left out; NaN where none has any.
        """
        seen, total = as_numpy(self.count > 0), self.count.sum()
        each = {k: float(v[seen].mean()) if seen.any() else math.nan for k, v in self.per_target().items()}
        return {
            "mae": each["mae"],
            "rmse": each["rmse"],
            "r2": each["r2"],
            "scaled_mse": float(self.square.sum() / total),
            "scaled_mae": float(self.absolute.sum() / total),
        }


class IntervalSums:
    """Errors of the point prediction, and how often the widest interval between quantiles holds the truth."""

    def __init__(self, task: NumberTask) -> None:
        self.task, self.reading = task, task.reading
        self.errors = ErrorSums(task.mean, task.std)
        self.inside, self.count = 0, 0

    @property
    def better(self) -> Better:
        coverage: Better = {"interval_coverage": "higher"} if len(self.reading.levels) > 1 else {}
        return {**self.errors.better, **coverage}

    def update(self, batch: Batch, prediction: Tensor) -> None:
        truth, raw = target_of(batch), self.task.read(prediction)
        self.errors.add(self.reading.point(raw), truth)
        if len(self.reading.levels) > 1:
            band = self.reading.quantiles(raw).to(truth)
            self.inside += int(((truth >= band[..., 0]) & (truth <= band[..., -1])).sum())
            self.count += int((~truth.isnan()).sum())

    def per_target(self) -> dict[str, np.ndarray]:
        """Return the errors of the point prediction for each target, see `ErrorSums`."""
        return self.errors.per_target()

    def compute(self) -> dict[str, float]:
        figures = self.errors.compute()
        if self.count:
            figures["interval_coverage"] = self.inside / self.count
        return figures


class NumberTask(Task):
    """Numbers to be predicted, in standard units of the training part, and the loss that says how a head is read."""

    targets: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    point: NumberLoss = "mse"
    quantiles: tuple[float, ...] = ()

    @property
    def reading(self) -> Reading:
        return make_reading(self.point, self.quantiles, self.mean, self.std)

    def read(self, prediction: Tensor) -> Tensor:
        """Return predictions as [..., C, P], the P numbers that `reading` reads of each target."""
        return prediction

    def metrics(self) -> IntervalSums:
        return IntervalSums(self)

    def decode(self, prediction: Tensor) -> dict[str, np.ndarray]:
        """Return a column per target in its own units, then `<target>_q10` … and the parameters of a distribution."""
        return self.reading.columns(self.read(prediction), self.targets, self.mean, self.std)


class Regression(NumberTask):
    """One or several numbers per sequence. Predictions are [B, C·P], see `NumberTask`."""

    task: Literal["regression"] = "regression"

    @property
    def outputs(self) -> int:
        return len(self.targets) * self.reading.size

    def read(self, prediction: Tensor) -> Tensor:
        return prediction.reshape(*prediction.shape[:-1], len(self.targets), self.reading.size)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        target = target_of(batch)
        return self.reading.loss(self.read(prediction), target)[0] / len(self.targets), one_per(target)
