"""Losses as options: what fits a task, what the training part says of classes, and that rare classes gain (B3, C13)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import tidegate as tg
from tidegate.cli import main
from tidegate.config import LossName, make_config
from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import ConfigError, DataError
from tidegate.prepare import Prepared, prepare
from tidegate.prepare.objective import LOSSES
from tidegate.run import run, start_run, train
from tidegate.tasks.long_tail import class_balanced_weights

QUICK: dict[str, Any] = {"hidden_size": 8, "epochs": 10, "lr": 0.02, "batch_size": 64, "dropout": 0.0}


def frame(sizes: tuple[int, ...] = (30, 12, 6)) -> pl.DataFrame:
    """Sequences of three classes with a tag a step, two labels, a count and a number each."""
    random = np.random.default_rng(0)
    y = np.repeat(np.arange(3), sizes)
    return pl.DataFrame(
        [
            {"i": i, "t": t, "x": random.normal() + k, "kind": "abc"[k], "tag": "uv"[int(t > 3 - k)],
             "one": int(k > 0), "two": int(k > 1), "n": float(i % 4), "z": float(i) / 7}
            for i, k in enumerate(y)
            for t in range(4)
        ]
    )  # fmt: skip


TARGETS = {
    "classification": ("kind",),
    "tagging": ("tag",),
    "multilabel": ("one", "two"),
    "regression": ("n",),
    "forecasting": ("n",),
}


def made(task: str, data: pl.DataFrame | None = None, **options: Any) -> Prepared:
    target, table = TARGETS[task], frame() if data is None else data
    shaped = {"horizon": 1, "lookback": 1} if task == "forecasting" else {}
    keep = ["i", "t", "x", *target]
    config = make_config({"id": "i", "time": "t", "target": target, "task": task, **shaped, **options})
    return prepare(load_table(open_source(table.select(keep)), id="i", time="t"), config)


def test_every_loss_that_can_be_named_fits_a_task() -> None:
    assert {name for names in LOSSES.values() for name in names} == set(get_args(LossName))


@pytest.mark.parametrize("task", LOSSES)
def test_the_default_is_resolved_and_other_losses_are_told(task: str) -> None:
    assert made(task).config.loss == LOSSES[task][0]
    for name in get_args(LossName):
        if name in LOSSES[task]:
            assert made(task, loss=name).config.loss == name
        else:
            with pytest.raises(ConfigError, match=f"train {task} with; expected loss to be one of .*; got '{name}'"):
                made(task, loss=name)


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        ("regression", {"label_smoothing": 0.1}, "label_smoothing=0.1 with regression and loss='mse'"),
        ("regression", {"class_weight": "balanced"}, "class_weight='balanced' with regression"),
        ("forecasting", {"sampling": "balanced"}, "sampling='balanced' with forecasting"),
        ("tagging", {"sampling": "balanced"}, "sampling='balanced' with tagging"),
        ("multilabel", {"logit_adjustment": 1.0}, "logit_adjustment=1.0 with multilabel"),
        ("classification", {"loss": "focal", "label_smoothing": 0.1}, "label_smoothing=0.1 .* loss='focal'"),
        ("classification", {"loss": "ldam", "logit_adjustment_after": 1.0}, "adjustment_after=1.0 .* loss='ldam'"),
        ("classification", {"class_weight": {"d": 2.0}}, "classes of the target; got 'd'"),
    ],
)  # fmt: skip
def test_an_option_that_does_not_fit_is_told(task: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        made(task, **options)


@pytest.mark.parametrize("loss", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("task", ["regression", "forecasting"])
def test_counts_are_whole_and_not_negative(task: str, loss: str) -> None:
    assert made(task, loss=loss).blueprint.task.outputs >= 1
    for wrong, said in ((-1.0, "-1"), (0.5, "0.5")):
        spoilt = frame().with_columns(n=pl.when(pl.col("i") == 5).then(wrong).otherwise(pl.col("n")))
        with pytest.raises(DataError, match=f"counts 'n' of .*whole numbers of at least 0; got {said}"):
            made(task, spoilt, loss=loss)


def held_out(found: Prepared) -> list[int]:
    return np.unique(np.concatenate([b.rows.numpy() for b in found.valid.batches(0)])).tolist()


def test_counts_of_classes_are_of_the_training_part() -> None:
    found = made("classification", valid=0.25)
    objective = found.blueprint.task.objective
    seen = frame().group_by("i").first().filter(~pl.col("i").is_in(held_out(found)))["kind"].value_counts()
    expected = dict(seen.iter_rows())
    assert objective.counts == tuple(expected[c] for c in "abc")
    assert sum(objective.counts) == found.sizes["train_sequences"] < 48


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_counts_of_tags_are_of_the_steps_of_the_training_part(limit: int) -> None:
    data = frame().with_columns(tag=pl.when(pl.col("t") > 0).then(pl.col("tag"))).select("i", "t", "x", "tag")
    config = make_config({"id": "i", "time": "t", "target": "tag", "task": "tagging", "valid": 0.25})
    found = prepare(load_table(open_source(data), id="i", time="t", memory_limit_bytes=limit), config)
    seen = data.filter(~pl.col("i").is_in(held_out(found)))["tag"].drop_nulls().value_counts()
    expected = dict(seen.iter_rows())
    assert found.blueprint.task.objective.counts == (expected["u"], expected["v"])


def test_counts_of_labels_and_their_weights() -> None:
    found = made("multilabel", valid=0.25, class_weight=0.9).blueprint.task.objective
    rest = found.of - found.counts[0]
    np.testing.assert_allclose(found.weights[0], class_balanced_weights((rest, found.counts[0]), 0.9))
    assert made("multilabel", class_weight={"two": 5.0}).blueprint.task.objective.weights == ((1.0, 1.0), (1.0, 5.0))


def test_weights_by_frequency_by_effective_number_and_by_name() -> None:
    for asked, beta in (("balanced", 1.0), (0.9, 0.9)):
        found = made("classification", class_weight=asked).blueprint.task.objective
        np.testing.assert_allclose(found.weights, class_balanced_weights(found.counts, beta))
    assert made("classification", class_weight={"c": 4}).blueprint.task.objective.weights == (1.0, 1.0, 4.0)
    assert made("classification").blueprint.task.objective.weights == ()


def test_balanced_sampling_takes_every_class_equally_often_each_epoch() -> None:
    loader = made("classification", sampling="balanced", batch_size=7).train
    first, second = (torch.cat([b.target for b in loader.batches(epoch)]) for epoch in (0, 1))
    assert len(first) == loader.items
    assert len(torch.bincount(first).unique()) == len(torch.bincount(second).unique()) == 1
    assert loader.steps == len(list(loader.batches(0)))
    rows = [torch.cat([b.rows for b in loader.batches(epoch)]) for epoch in (0, 0, 1)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])


def problem(counts: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes, as often as `counts` says."""
    random, y = np.random.default_rng(seed), np.repeat(np.arange(3), counts)
    angle = 2 * np.pi * y / 3
    centre = 0.75 * np.stack([np.cos(angle), np.sin(angle)], -1)
    return random.normal(size=(len(y), 4, 2)) + centre[:, None], y


@pytest.fixture(scope="module")
def plain() -> float:
    return balanced_accuracy({})


def balanced_accuracy(options: dict[str, Any]) -> float:
    """Train on a long tail, and score where every class is equally frequent."""
    X, y = problem((100, 100, 100), 1)
    model = tg.Classifier(**QUICK, seed=1, **options).fit(*problem((300, 30, 10), 0))
    return float(balanced_accuracy_score(y, model.predict(X)))


@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": "balanced"},
        {"class_weight": 0.99},
        {"logit_adjustment": 1.0},
        {"logit_adjustment_after": 1.0},
        {"loss": "ldam", "class_weight": 0.99},
        {"sampling": "balanced"},
    ],
)
def test_rare_classes_gain_on_a_long_tail(options: dict[str, Any], plain: float) -> None:
    assert plain < 0.55
    assert balanced_accuracy(options) > plain + 0.12


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classification", {"loss": "ldam", "ldam_scale": 10.0, "class_weight": "balanced"}),
        ("classification", {"label_smoothing": 0.1, "logit_adjustment_after": 0.5}),
        ("tagging", {"loss": "focal", "focal_gamma": 1.0, "class_weight": {"u": 2.0}}),
        ("multilabel", {"loss": "focal", "class_weight": 0.9}),
        ("regression", {"loss": "quantile", "quantiles": [0.2, 0.8]}),
        ("regression", {"loss": "negative_binomial"}),
        ("forecasting", {"loss": "student_t"}),
    ],
)
def test_a_run_is_written_resolved_and_loaded_predicts_the_same(
    task: str, options: dict[str, Any], tmp_path: Path
) -> None:
    data = frame().select("i", "t", "x", *TARGETS[task])
    data.write_csv(tmp_path / "d.csv")
    shaped = {"horizon": 1, "lookback": 2} if task == "forecasting" else {}
    asked = {"id": "i", "time": "t", "target": TARGETS[task], "task": task, "epochs": 2, "hidden_size": 4}
    start_run(tmp_path / "RUN", str(tmp_path / "d.csv"), None, make_config({**asked, **shaped, **options}))
    done = run(tmp_path / "RUN", resume=False)
    kept = json.loads((tmp_path / "RUN" / "config.json").read_text())["config"]
    assert kept["loss"] == options.get("loss", "cross_entropy")
    again = tg.load(tmp_path / "RUN")
    assert again.blueprint == done.model.blueprint  # type: ignore[union-attr]
    assert again.predict(data).equals(done.model.predict(data))  # type: ignore[union-attr]
    assert again.evaluate(data) == done.model.evaluate(data)  # type: ignore[union-attr]
    assert "interval_coverage" in again.metrics or task not in ("regression", "forecasting")
    repeated = tg.fit(tmp_path / "d.csv", config=tmp_path / "RUN" / "config.json", quiet=True)
    assert repeated.metrics == again.metrics


def test_options_without_effect_are_said() -> None:
    data = frame().select("i", "t", "x", "n")
    config = {"id": "i", "time": "t", "target": "n", "task": "regression", "epochs": 1, "hidden_size": 4}
    assert train(data, make_config({**config, "quantiles": (0.5,), "loss": "gaussian"})).notes == []
    notes = train(data, make_config({**config, "quantiles": (0.5,), "focal_gamma": 1.0})).notes
    assert notes == ["focal_gamma has no effect with loss='mse'", "quantiles has no effect with loss='mse'"]


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    frame().select("i", "t", "x", "kind").write_csv("d.csv")

    def tidegate(*options: str) -> tuple[int, str, str]:
        words = ["train", "d.csv", "--target", "kind", "--id", "i", "--time", "t", "--epochs", "1", "--json"]
        monkeypatch.setattr(sys, "argv", ["tidegate", *words, *(w for option in options for w in ("--set", option))])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0), *capsys.readouterr()

    code, out, _ = tidegate("loss=ldam", 'class_weight={"c": 3}', "ldam_margin=0.4")
    assert code == 0
    task = tg.load(json.loads(out)["run"]).blueprint.task
    assert (task.objective.loss, task.objective.weights, task.objective.ldam_margin) == ("ldam", (1.0, 1.0, 3.0), 0.4)
    code, _, error = tidegate("logit_adjustment=1", "logit_adjustment_after=1")
    assert code == 2
    assert "got logit_adjustment=1.0 and logit_adjustment_after=1.0" in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("pair", [("logit_adjustment", "logit_adjustment_after"), ("class_weight", "sampling")])
def test_class_frequencies_are_never_corrected_twice(pair: tuple[str, str]) -> None:
    values = {"class_weight": "balanced", "sampling": "balanced"}
    options = {name: values.get(name, 1.0) for name in pair}
    with pytest.raises(
        ConfigError, match=rf"at most one of .*got {pair[0]}=.* and {pair[1]}=.*try: leave {pair[1]} out"
    ):
        make_config(options)
    X, y = problem((9, 9, 9), 0)
    with pytest.raises(ConfigError, match="fitting Classifier; expected at most one of"):
        tg.Classifier(**options).fit(X, y)


@pytest.mark.parametrize("value", ["even", 1.0, -0.1, True, float("nan"), {}, {"a": 0.0}, {"a": float("inf")}, ["a"]])
def test_a_class_weight_that_cannot_be_is_told(value: Any) -> None:
    with pytest.raises(ConfigError, match="class_weight; expected 'balanced', a number of at least 0 and below 1, or"):
        make_config({"class_weight": value})


def test_a_resumed_balanced_run_ends_as_one_that_was_not_stopped(tmp_path: Path) -> None:
    frame().select("i", "t", "x", "kind").write_csv(tmp_path / "d.csv")
    options = {"id": "i", "time": "t", "target": "kind", "epochs": 4, "hidden_size": 4, "sampling": "balanced"}

    class Stopped(Exception):  # noqa: N818 - it is no error
        pass

    class StopAfter:
        def __call__(self, event: Any) -> None:
            if type(event).__name__ == "Step" and (event.epoch, event.step) == (2, 0):
                raise Stopped

    for name in ("whole", "broken"):
        start_run(tmp_path / name, str(tmp_path / "d.csv"), None, make_config(options))
    run(tmp_path / "whole", resume=False)
    with pytest.raises(Stopped):
        run(tmp_path / "broken", resume=False, observers=[StopAfter()])
    run(tmp_path / "broken", resume=True)
    for file in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "broken" / file).read_bytes()


def test_a_regressor_gives_quantiles() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(40, 5, 1))
    y = X.sum((1, 2))
    model = tg.Regressor(loss="laplace", quantiles=(0.9, 0.1), epochs=2, hidden_size=4).fit(X, y)
    band = model.predict_quantiles(X)
    assert band.shape == (40, 2)
    assert ((band[:, 0] < model.predict(X)) & (model.predict(X) < band[:, 1])).all()
    assert model.fit(X, np.stack([y, -y], 1)).predict_quantiles(X).shape == (40, 2, 2)
    with pytest.raises(ConfigError, match="trained to give them; got loss='mse'"):
        tg.Regressor(epochs=1, hidden_size=4).fit(X, y).predict_quantiles(X)


def test_a_distribution_finds_the_spread_of_its_data() -> None:
    """Noise whose deviation is known, and depends on the sequence: its scale and its interval are found."""
    random = np.random.default_rng(0)
    wide = np.arange(600) % 2
    X = np.where(wide, 1.0, -1.0)[:, None, None] + 0.1 * random.normal(size=(600, 3, 1))
    y = random.normal(size=600) * np.where(wide, 5.0, 1.0)
    model = tg.Regressor(loss="gaussian", hidden_size=4, epochs=12, lr=0.03, batch_size=64).fit(X, y)
    scale = model.model_.predict(model._table(X))["y_scale"].to_numpy()
    assert scale[wide == 0].mean() == pytest.approx(1.0, rel=0.25)
    assert scale[wide == 1].mean() == pytest.approx(5.0, rel=0.25)
    band = model.predict_quantiles(X)
    assert ((y > band[:, 0]) & (y < band[:, 2])).mean() == pytest.approx(0.8, abs=0.06)
