"""Forecasts: several steps ahead, several columns, with quantiles."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tidegate.data.batch import Batch
from tidegate.tasks.base import target_of
from tidegate.tasks.regression import NumberTask


class Forecasting(NumberTask):
    """Several columns, `horizon` steps ahead. Predictions are [B, S, C, P], see `NumberTask`.

    With a point loss they are the point forecast, then each quantile; the loss = point loss + the mean pinball loss
    over quantiles. A missing truth counts nothing.
    """

    task: Literal["forecasting"] = "forecasting"
    horizon: int
    lookback: int
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    @property
    def outputs(self) -> int:
        return self.reading.size

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return self.reading.loss(prediction, target_of(batch))
