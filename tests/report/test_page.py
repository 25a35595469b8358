"""The report of every task: complete, escaped, self-contained, the same twice, and its numbers the model's own."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from tidegate.config import make_config
from tidegate.report.page import page, write_report
from tidegate.run import Trained, train

HOSTILE = "</script><script>alert(1)</script>"
TASKS = ["classification", "tagging", "multilabel", "regression", "forecasting"]
VOID = {"meta", "br", "link", "img", "hr"}


def _trained(task: str) -> Trained:
    rng = np.random.default_rng(0)
    count = 48
    owner = np.repeat(np.arange(count), rng.integers(3, 9, count))
    if task == "forecasting":
        days = [datetime(2024, 1, 1) + timedelta(days=i) for i in range(90)]
        frame = pl.DataFrame({"day": days, "sales": np.sin(np.arange(90.0)), "price": rng.normal(size=90)})
        return train(
            frame, make_config({"target": ("sales",), "time": "day", "horizon": 5, "epochs": 2, "hidden_size": 4})
        )
    frame = pl.DataFrame(
        {"id": owner, "x": rng.normal(size=len(owner)) + owner % 3, HOSTILE: rng.normal(size=len(owner))}
    )
    targets: dict[str, pl.DataFrame] = {
        "classification": pl.DataFrame({"y": np.array(["a", "b", HOSTILE])[owner % 3]}),
        "tagging": pl.DataFrame({"y": np.where(frame["x"] > 1, "high", "low")}),
        "multilabel": pl.DataFrame({"y": owner % 2, "z": owner % 3 == 0}),
        "regression": pl.DataFrame({"y": rng.normal(size=count)[owner] * 50}),
    }
    columns = targets[task]
    options = {"target": tuple(columns.columns), "task": task, "id": "id", "epochs": 2, "hidden_size": 4}
    return train(frame.hstack(columns), make_config(options))


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest) -> tuple[Trained, str]:
    trained = _trained(request.param)
    return trained, page(trained, f"/data/{HOSTILE}.csv")


class Page(HTMLParser):
    """Collects what a browser would see: open elements, text, scripts, and addresses it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.cells: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "script":
            self.scripts.append("")
        self.loads += [v or "" for k, v in attrs if k in ("src", "href")]
        self.ids += [v or "" for k, v in attrs if k == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1] += data
        if self.stack and self.stack[-1] in ("td", "th"):
            self.cells.append(data)


def _figures(seen: Page) -> list[dict]:
    return json.JSONDecoder().raw_decode(seen.scripts[1].removeprefix("const FIGURES = "))[0]


def test_a_page_is_whole_and_loads_nothing(made: tuple[Trained, str]) -> None:
    seen = Page(made[1])
    assert seen.stack == []
    assert seen.loads == []
    assert len(seen.scripts) == 2, "a label must not open or close a script"
    assert "<script>alert" not in made[1]


def test_every_figure_has_a_frame_and_is_one_plotly_accepts(made: tuple[Trained, str]) -> None:
    seen = Page(made[1])
    figures = _figures(seen)
    assert len(figures) >= 2
    assert [i for i in seen.ids if i.startswith("figure-")] == [f"figure-{i}" for i in range(len(figures))]
    for figure in figures:
        go.Figure(figure)


def test_the_same_training_gives_the_same_page(made: tuple[Trained, str]) -> None:
    assert page(made[0], f"/data/{HOSTILE}.csv") == made[1]


def test_confusion_matrix_covers_every_validation_sequence() -> None:
    trained = _trained("classification")
    seen = Page(page(trained, "d.csv"))
    heat = next(f["data"][0] for f in _figures(seen) if f["data"][0]["type"] == "heatmap")
    matrix = np.array(heat["customdata"])
    assert matrix.sum() == trained.prepared.sizes["valid_sequences"]
    assert np.trace(matrix) / matrix.sum() == pytest.approx(trained.model.metrics["accuracy"])
    support = matrix.sum(1)
    np.testing.assert_allclose(np.array(heat["z"]) * support[:, None], matrix)


def test_errors_shown_are_those_of_the_metrics() -> None:
    trained = _trained("regression")
    seen = Page(page(trained, "d.csv"))
    points = next(f["data"][1] for f in _figures(seen) if f["data"][0].get("name") == "Perfect")
    error = np.array(points["y"]) - np.array(points["x"])
    assert np.abs(error).mean() == pytest.approx(trained.model.metrics["mae"], rel=1e-5)
    assert f"{trained.model.metrics['rmse']:.4g}" in seen.cells


def test_error_by_step_averages_to_the_metric() -> None:
    trained = _trained("forecasting")
    figures = _figures(Page(page(trained, "d.csv")))
    steps = next(f for f in figures if f["layout"]["xaxis"]["title"]["text"] == "Steps ahead")
    assert np.mean(steps["data"][0]["y"]) == pytest.approx(trained.model.metrics["mae"], rel=1e-5)
    naive = np.sin(np.arange(90.0))
    first = 90 - trained.prepared.sizes["valid_windows"] - 5 + 1
    origins = np.arange(first, 90 - 5 + 1)
    assert steps["data"][1]["y"][2] == pytest.approx(np.abs(naive[origins + 2] - naive[origins - 1]).mean(), rel=1e-5)


def test_forecast_examples_stand_on_the_truth_at_its_time() -> None:
    figures = _figures(Page(page(_trained("forecasting"), "d.csv")))
    example = next(f for f in figures if any(t.get("name") == "Look-back" for t in f["data"]))
    truth = next(t for t in example["data"] if t.get("name") == "Truth")
    for day, value in zip(truth["x"], truth["y"], strict=True):
        step = (datetime.fromisoformat(day) - datetime(2024, 1, 1)).days
        assert value == pytest.approx(np.sin(step), abs=1e-5)


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, trained = tmp_path / "report.html", _trained("regression")
    write_report(path, trained, "d.csv")
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(path, trained, "other.csv")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
