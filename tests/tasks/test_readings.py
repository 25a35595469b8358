"""What a head says of a number: losses, quantiles and means against SciPy (B3, D2, D4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tidegate.data.batch import Batch
from tidegate.tasks.forecast_network import ForecastNetwork
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Architecture
from tidegate.tasks.readings import NUMBER_LOSSES, POINT_LOSSES, make_reading
from tidegate.tasks.regression import Regression

from .figures import batches, figures

LAWS = ["gaussian", "laplace", "student_t", "poisson", "negative_binomial"]
LEVELS = (0.05, 0.5, 0.9)
MEAN, STD = (6.0, 2.0), (3.0, 1.5)


def raw(kind: str, rows: int = 11) -> Tensor:
    size = make_reading(kind, LEVELS, MEAN, STD).size
    return torch.randn(rows, 2, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def law(kind: str, r: np.ndarray, m: float = 0.0, s: float = 1.0) -> Any:
    """SciPy's distribution of a target, written from the docstrings; counts in their own units."""

    def soft(x: Any) -> Any:
        return np.log1p(np.exp(x))

    if kind in ("poisson", "negative_binomial"):
        rate = s * (soft(r[..., 0] + m / s) + 1e-4)
        if kind == "poisson":
            return stats.poisson(rate)
        a = soft(r[..., 1]) + 1e-6
        return stats.nbinom(1 / a, 1 / (1 + a * rate))
    scale = np.exp(r[..., 1]) + 1e-4
    if kind == "student_t":
        return stats.t(2 + soft(r[..., 2]), loc=r[..., 0], scale=scale)
    return {"gaussian": stats.norm, "laplace": stats.laplace}[kind](loc=r[..., 0], scale=scale)


def truths(kind: str, rows: int = 11) -> np.ndarray:
    random = np.random.default_rng(0)
    if kind in ("poisson", "negative_binomial"):
        return np.stack([random.poisson(m, rows) for m in MEAN], 1).astype(float)
    return random.normal(size=(rows, 2)) * STD + MEAN


@pytest.mark.parametrize("kind", LAWS)
def test_laws_are_scipys(kind: str) -> None:
    reading, r, own = make_reading(kind, LEVELS, MEAN, STD), raw(kind), truths(kind)
    scaled, counted = (own - MEAN) / STD, kind in ("poisson", "negative_binomial")
    expected, columns = 0.0, reading.columns(r, ("a", "b"), MEAN, STD)
    for c, name in enumerate("ab"):
        found = law(kind, r[:, c].numpy(), MEAN[c], STD[c])
        expected -= (found.logpmf(own[:, c]) if counted else found.logpdf(scaled[:, c])).sum()
        place, unit = (0.0, 1.0) if counted else (MEAN[c], STD[c])
        np.testing.assert_allclose(columns[name], found.mean() * unit + place, rtol=1e-6, err_msg=name)
        for q in LEVELS:
            np.testing.assert_allclose(
                columns[f"{name}_q{100 * q:g}"], found.ppf(q) * unit + place, rtol=1e-6, atol=1e-9
            )
    total, count = reading.loss(r, torch.from_numpy(scaled))
    assert float(total) == pytest.approx(expected, 1e-9)
    assert int(count) == own.size
    single, _ = reading.loss(r.float(), torch.from_numpy(scaled).float())
    assert single.dtype == torch.float32
    assert float(single) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("kind", NUMBER_LOSSES)
def test_gradients_and_missing_truths(kind: str) -> None:
    reading, r, own = make_reading(kind, LEVELS, MEAN, STD), raw(kind), truths(kind)
    truth = torch.from_numpy((own - MEAN) / STD)
    assert torch.autograd.gradcheck(lambda r: reading.loss(r, truth)[0], (r.clone().requires_grad_(),))
    holed = truth.clone()
    holed[3] = torch.nan
    kept = [i for i in range(11) if i != 3]
    (total, count), (expected, n) = reading.loss(r, holed), reading.loss(r[kept], truth[kept])
    torch.testing.assert_close(total, expected)
    assert int(count) == int(n) == 20


def test_parameters_are_columns_in_the_targets_units() -> None:
    r = raw("student_t")
    columns = make_reading("student_t", (), MEAN, STD).columns(r, ("a", "b"), MEAN, STD)
    assert list(columns) == ["a", "a_scale", "a_df", "b", "b_scale", "b_df"]
    np.testing.assert_allclose(columns["b_scale"], (r[:, 1, 1].exp() + 1e-4) * STD[1])
    assert (columns["a_df"] > 2).all()
    counts = make_reading("negative_binomial", (0.5,), MEAN, STD).columns(
        raw("negative_binomial"), ("a", "b"), MEAN, STD
    )
    assert list(counts)[:3] == ["a", "a_q50", "a_dispersion"]
    np.testing.assert_allclose(counts["a_q50"], counts["a_q50"].round(), atol=1e-9)


@pytest.mark.parametrize("levels", [(), (0.1, 0.9), (0.25, 0.5, 0.75)])
def test_quantile_regression_has_the_median_as_its_point(levels: tuple[float, ...]) -> None:
    reading = make_reading("quantile", levels, MEAN, STD)
    assert reading.size == len({*levels, 0.5})
    r = torch.randn(5, 2, reading.size)
    summary, ordered = reading.summary(r), r.sort(-1).values
    assert torch.equal(summary[..., 0], ordered[..., sorted({*levels, 0.5}).index(0.5)])
    assert summary.shape == (5, 2, 1 + len(levels))
    assert (summary[..., 1:].diff(dim=-1) >= 0).all()


@pytest.mark.parametrize("kind", ["quantile", *LAWS])
@pytest.mark.parametrize("size", [1, 8, 30])
def test_figures_are_of_the_point_and_the_widest_interval_whatever_the_batches(kind: str, size: int) -> None:
    task = Regression(targets=("a", "b"), mean=MEAN, std=STD, point=kind, quantiles=LEVELS)  # type: ignore[arg-type]
    r, own = raw(kind, 30), truths(kind, 30)
    prediction = r.flatten(1)
    assert prediction.shape[1] == task.outputs
    found = figures(task, torch.from_numpy((own - MEAN) / STD), prediction, size)
    columns = task.decode(prediction)
    point = np.stack([columns["a"], columns["b"]], 1)
    low, high = (np.stack([columns[f"{n}_q{q}"] for n in "ab"], 1) for q in (5, 90))
    assert found["mae"] == pytest.approx(np.abs(point - own).mean())
    assert found["interval_coverage"] == pytest.approx(((own >= low - 1e-9) & (own <= high + 1e-9)).mean())
    assert found["loss"] == pytest.approx(float(task.reading.loss(r, torch.from_numpy((own - MEAN) / STD))[0]) / 60)


@pytest.mark.parametrize("kind", POINT_LOSSES)
def test_a_point_has_no_interval(kind: str) -> None:
    task = Regression(targets=("a", "b"), mean=MEAN, std=STD, point=kind)  # type: ignore[arg-type]
    assert task.outputs == 2
    found = figures(task, torch.zeros(4, 2), torch.ones(4, 2), 2)
    assert "interval_coverage" not in found
    assert "interval_coverage" not in task.metrics().better


@pytest.mark.parametrize("kind", ["quantile", *LAWS])
def test_forecasts_of_a_law_follow_place_and_spread_of_the_look_back(kind: str) -> None:
    torch.manual_seed(0)
    task = Forecasting(targets=("y",), mean=(20.0,), std=(1.0,), horizon=3, lookback=8, point=kind, quantiles=LEVELS)  # type: ignore[arg-type]
    network = ForecastNetwork(Architecture(hidden_size=6), task, 0, (), 0, ()).eval()
    network.context.weight.data[:, -2:] = 0  # the two inputs that tell level and scale
    y = torch.randn(4, 8, 1)

    def said(history: Tensor) -> Tensor:
        empty = torch.zeros(4, 8, 0)
        return network(Batch(empty, empty.long(), torch.full((4,), 8), torch.arange(4), history=history))

    before, after = said(y), said(y * 0.1 + 5)
    assert before.shape == (4, 3, 1, task.outputs)
    places = task.reading.places
    torch.testing.assert_close(after[..., :places], before[..., :places] * 0.1 + 5, atol=1e-4, rtol=1e-4)
    for i in range(places, task.outputs):
        shift = math.log(0.1) if i in task.reading.log_scales else 0.0
        torch.testing.assert_close(after[..., i], before[..., i] + shift, atol=1e-4, rtol=1e-4)
    truth = torch.randint(15, 25, (4, 3, 1)).float() - 20
    truth[1, 2] = torch.nan
    for batch, prediction in batches(truth, before, 4):
        total, count = task.loss(batch, prediction)
        total.backward()
        assert int(count) == 11
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert list(task.decode(before.detach()))[:4] == ["y", "y_q5", "y_q50", "y_q90"]
