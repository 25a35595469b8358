"""Losses and figures of regression and forecasting against scikit-learn (B3, D2, D4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.regression import Regression

from .figures import figures

MEAN, STD = (10.0, -3.0), (2.0, 0.5)


def own(scaled: torch.Tensor) -> np.ndarray:
    return (scaled.double() * torch.tensor(STD) + torch.tensor(MEAN)).numpy()


@pytest.mark.parametrize("size", [1, 8, 40])
def test_regression_figures_are_in_the_targets_units(size: int) -> None:
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(40, 2, generator=random)
    guess = truth + 0.3 * torch.randn(40, 2, generator=random)
    found = figures(Regression(targets=("a", "b"), mean=MEAN, std=STD), truth, guess, size)
    y, p = own(truth), own(guess)
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(y, p), 1e-5)
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(y, p), 1e-5)
    assert found["r2"] == pytest.approx(oracle.r2_score(y, p), 1e-5)
    assert found["scaled_mse"] == pytest.approx(found["loss"], 1e-5)


@pytest.mark.parametrize("point", ["mse", "mae", "huber"])
@pytest.mark.parametrize("size", [3, 20])
def test_forecast_loss_is_point_and_pinball_over_known_truths(point: str, size: int) -> None:
    random = torch.Generator().manual_seed(1)
    truth, guess = torch.randn(20, 5, 2, generator=random), torch.randn(20, 5, 2, 4, generator=random)
    truth[0, 2], truth[7, :, 1] = torch.nan, torch.nan
    task = Forecasting(
        targets=("a", "b"), mean=MEAN, std=STD, horizon=5, lookback=9, quantiles=(0.1, 0.5, 0.9), point=point
    )  # type: ignore[arg-type]
    found = figures(task, truth, guess, size)
    seen = ~truth.isnan()
    y, p = truth[seen], guess[seen]
    pinball = [oracle.mean_pinball_loss(y, p[:, 1 + i], alpha=q) for i, q in enumerate(task.quantiles)]
    losses = {"mse": torch.nn.MSELoss(), "mae": torch.nn.L1Loss(), "huber": torch.nn.HuberLoss()}
    assert found["loss"] == pytest.approx(float(losses[point](p[:, 0], y)) + np.mean(pinball), 1e-5)
    assert found["scaled_mse"] == pytest.approx(oracle.mean_squared_error(y, p[:, 0]), 1e-5)
    low, high = p[:, 1:].amin(1), p[:, 1:].amax(1)
    assert found["interval_coverage"] == pytest.approx(float(((y >= low) & (y <= high)).float().mean()))


def test_quantiles_never_cross_and_come_back_in_units() -> None:
    task = Forecasting(targets=("a",), mean=(10.0,), std=(2.0,), horizon=2, lookback=4, quantiles=(0.1, 0.9))
    columns = task.decode(torch.tensor([[[[0.0, 1.0, -1.0]], [[0.5, -1.0, 2.0]]]]))
    assert columns["a"].tolist() == [[10.0, 11.0]]
    assert columns["a_q10"].tolist() == [[8.0, 8.0]]
    assert columns["a_q90"].tolist() == [[12.0, 14.0]]
