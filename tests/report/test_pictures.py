"""What the pictures show: the tasks' own figures, finite pairs, labels as they are, numbers beside every picture."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_page import Page, _figures, _trained

from tidegate.data.batch import Batch
from tidegate.report import figures, pictures
from tidegate.report.evidence import Errors, _last_known
from tidegate.report.markup import Plots
from tidegate.report.page import page, write_report
from tidegate.tasks.classification import Classification, ConfusionCounts, LabelCounts, MultiLabel
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.regression import Regression


def cells(html: str) -> list[str]:
    return Page(html).cells


def sums(task: Any, truth: Any, guess: Any) -> Any:
    found = task.metrics()
    y = torch.tensor(truth)
    empty = torch.zeros(len(y), 1, 0)
    found.update(Batch(empty, empty.long(), torch.ones(len(y)), torch.arange(len(y)), y), torch.tensor(guess))
    return found


def regression(truth: np.ndarray, guess: np.ndarray) -> tuple[Plots, str, dict[str, float]]:
    task = Regression(targets=("y",), mean=(0.0,), std=(1.0,))
    found, plots = sums(task, truth.astype(np.float32), guess.astype(np.float32)), Plots()
    return plots, pictures._numbers(truth, guess, found, task, plots), found.compute()


@pytest.mark.parametrize(("guess", "r2"), [(3.0, 1.0), (4.0, 0.0)])
def test_rows_are_the_metrics_own_even_where_targets_are_constant(guess: float, r2: float) -> None:
    _, html, metrics = regression(np.full((20, 1), 3.0), np.full((20, 1), guess))
    assert metrics["r2"] == r2
    assert cells(html)[-4:] == [f"{v:.4g}" for v in (metrics["mae"], metrics["rmse"], guess - 3.0, r2)]


def test_errors_that_are_not_finite_are_left_out_and_counted() -> None:
    truth = np.arange(30.0)[:, None]
    guess = truth + 1
    guess[3], guess[7] = np.inf, np.nan
    plots, html, _ = regression(truth, guess)
    assert html.count("2 more are not finite and not drawn") == 4, "in two captions and what describes their figures"
    assert len(plots.figures[0]["data"][1]["x"]) == 28
    assert sum(plots.figures[1]["data"][0]["y"]) == 28
    json.dumps(plots.figures, allow_nan=False)


def test_nothing_finite_draws_nothing() -> None:
    plots, html, _ = regression(np.zeros((5, 1)), np.full((5, 1), np.nan))
    assert plots.figures == []
    assert cells(html)[-4:] == ["–"] * 4


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e20])
def test_errors_that_are_all_the_same_have_a_histogram(size: float) -> None:
    counts, _ = np.histogram(np.full(50, size), bins=pictures._edges(np.full(50, size)))
    assert counts.sum() == 50


@pytest.mark.parametrize(
    ("count", "said"), [(2000, "all 2,000"), (2001, "one in 2 of the 2,001"), (6001, "one in 4 of")]
)
def test_the_caption_says_how_many_points_are_drawn(count: int, said: str) -> None:
    values = np.linspace(0, 1, count)[:, None]
    plots, html, _ = regression(values, values + 0.5)
    assert f"y: prediction over truth, {said}" in html
    assert len(plots.figures[0]["data"][1]["x"]) == -(-count // -(-count // 2000))


def test_labels_take_their_rows_from_the_metrics_and_a_dash_without_support() -> None:
    task = MultiLabel(targets=("a", "b"))
    found: LabelCounts = sums(task, [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]])
    rows = cells(pictures._labels(found))[7:]
    assert rows == ["a", "0.5", "0.5", "0.5", "2", "66.7 %", "2", "b", "–", "–", "–", "0", "0.0 %", "1"]
    assert found.compute()["macro_f1"] == pytest.approx(found.per_label()["f1"].mean())


def test_classes_without_support_have_a_dash_and_every_count_is_in_a_table() -> None:
    task = Classification(target="y", classes=("a", "b"))
    found: ConfusionCounts = sums(task, [0, 0, 0], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    shown = cells(pictures._classes(found, Plots(), "sequences"))
    assert shown[:9] == ["True", "a", "b", "a", "2", "1", "b", "0", "0"]
    assert shown[-6:] == ["b", "–", "–", "–", "0", "0.0 %"]


def test_labels_reach_plotly_as_they_are() -> None:
    shown = figures.confusion(np.eye(2, dtype=int), ['say "hi" & <b>', "it's"])["data"][0]["x"]
    assert shown == ['say "hi" &amp; &lt;b&gt;', "it's"]


def test_no_figure_can_close_its_script() -> None:
    script = Page(page(_trained("classification"), "d.csv")).scripts[1]
    described = script[: json.JSONDecoder().raw_decode(script, len("const FIGURES = "))[1]]
    assert "<" not in described
    assert "true %{y}<br>" in json.dumps(_figures(SimpleNamespace(scripts=["", script])))  # type: ignore[arg-type]


def test_the_last_known_value_passes_over_missing_ones() -> None:
    nan = math.nan
    past = np.array([[[1.0, nan], [2.0, 5.0], [nan, 6.0]], [[nan, nan], [nan, 3.0], [nan, nan]]])
    np.testing.assert_array_equal(_last_known(past), [[2.0, 6.0], [nan, 3.0]])


def test_forecast_errors_count_every_truth_once() -> None:
    task = Forecasting(targets=("a", "b"), mean=(9.0, 9.0), std=(2.0, 10.0), horizon=2, lookback=4)
    errors, nan = Errors(task), math.nan
    truth = torch.tensor([[[1.0, 1.0], [nan, 1.0]], [[3.0, nan], [4.0, 2.0]]])
    errors.add(torch.tensor([[[0.0, 0.0], [0.0, nan]], [[0.0, 0.0], [0.0, 0.0]]]), truth)
    np.testing.assert_allclose(errors.by_step(), [[4.0, 10.0], [8.0, 20.0]])
    np.testing.assert_allclose(errors.by_target(), [16 / 3, 15.0])


def test_forecasts_and_their_errors_are_in_tables_too() -> None:
    trained = _trained("forecasting")
    html = page(trained, "d.csv")
    found = _figures(Page(html))
    steps = next(f for f in found if f["layout"]["xaxis"]["title"]["text"] == "Steps ahead")
    example = next(f for f in found if any(t.get("name") == "Look-back" for t in f["data"]))
    shown = cells(html)
    for line in steps["data"]:
        assert {f"{v:.4g}" for v in line["y"]} <= set(shown)
    guess = next(t for t in example["data"] if t.get("name") == "Forecast")
    assert {f"{v:.4g}" for v in guess["y"]} <= set(shown)
    assert set(guess["x"]) <= set(shown)


def test_notes_are_a_section_and_escaped() -> None:
    trained = _trained("regression")
    told = page(replace(trained, notes=["rows <sorted> by time"]), "d.csv")
    assert '<h2>Notes</h2><ul class="notes"><li>rows &lt;sorted&gt; by time</li></ul>' in told
    assert "<h2>Notes</h2>" not in page(replace(trained, notes=[]), "d.csv")


def test_a_name_that_utf8_cannot_hold_is_written_as_its_escape(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", _trained("regression"), "broken\udc80.csv")
    assert "Trained on broken\\udc80.csv" in (tmp_path / "report.html").read_text()


def test_without_a_best_epoch_no_line_is_drawn_and_the_kept_one_is_named() -> None:
    trained = _trained("regression")
    html = page(replace(trained, result=replace(trained.result, best_epoch=None, kept_epoch=1)), "d.csv")
    assert "the weights are those of epoch 2, the last: the monitored figure was never a number" in html
    assert "dotted line is the best" not in html
    assert "chose the best epoch" not in html
    assert _figures(Page(html))[0]["layout"]["shapes"] == []


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression", "forecasting"])
def test_every_figure_of_a_task_says_which_way_is_better(task: str) -> None:
    found = _trained(task).model.network.metrics()
    assert found.better.keys() | {"loss"} == _trained(task).result.metrics.keys()
