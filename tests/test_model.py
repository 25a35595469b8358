"""Train, evaluate, predict and save from tables (C1-C4, C11, D1-D4) through `tg.fit` and `tg.load`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg

QUICK = {"epochs": 3, "hidden_size": 8, "quiet": True}


def events(count: int = 60, seed: int = 0) -> pl.DataFrame:
    """A long table of uneven sequences with every kind of column; the label is whether `level` starts high."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        high = bool(i % 2)
        for t in range(int(random.integers(1, 12))):
            rows.append(
                {
                    "stay": f"s{i}",
                    "minute": float(t * 10 + random.integers(0, 5)),
                    "level": None if random.random() < 0.2 else random.normal(2.0 if high else -2.0),
                    "ward": random.choice(["a", "b", "c"]),
                    "awake": bool(random.integers(2)),
                    "outcome": "high" if high else "low",
                    "score": (3.0 if high else 1.0) + i / 1000,
                    "phase": "start" if t < 2 else "late",
                }
            )
    return pl.DataFrame(rows)


def fit(target: str | list[str], drop: list[str], **options: object) -> tg.Model:
    return tg.fit(events().drop(drop), target, id="stay", time="minute", **{**QUICK, **options})


def test_classification_predicts_rows_that_join_by_id() -> None:
    model = fit("outcome", ["score"], epochs=15, lr=0.02)
    frame = model.predict(events(seed=5))
    assert frame["stay"].to_list() == [f"s{i}" for i in range(60)]
    truth = events(seed=5).group_by("stay", maintain_order=True).first()
    assert (frame["outcome"] == truth["outcome"]).mean() > 0.9
    assert np.allclose(frame["probability_high"] + frame["probability_low"], 1.0)
    assert model.evaluate(events(seed=5))["accuracy"] == pytest.approx((frame["outcome"] == truth["outcome"]).mean())


def test_regression_answers_in_the_targets_own_units() -> None:
    model = fit("score", ["outcome"], epochs=25, lr=0.02)
    assert model.blueprint.task.task == "regression"
    assert model.evaluate(events(seed=5))["mae"] < 0.7
    assert 0.0 < model.predict(events(seed=5))["score"].mean() < 4.0


def test_tagging_gives_a_row_a_step() -> None:
    model = fit("phase", ["outcome", "score"], epochs=20, lr=0.02)
    assert model.blueprint.task.task == "tagging"
    data = events(seed=5)
    frame = model.predict(data)
    assert frame.height == data.height
    joined = data.join(frame, on=["stay", "minute"], suffix="_guess")
    assert joined.height == data.height
    assert (joined["phase"] == joined["phase_guess"]).mean() > 0.9


def test_a_prediction_does_not_depend_on_its_company() -> None:
    model = fit("outcome", ["score"])
    data = events(seed=5)
    whole = model.predict(data)
    alone = pl.concat([model.predict(data.filter(pl.col("stay") == s)) for s in ("s0", "s7", "s31")])
    both = whole.filter(pl.col("stay").is_in(["s0", "s7", "s31"]))
    assert np.allclose(both["probability_high"], alone["probability_high"], atol=1e-6)


def test_saved_and_loaded_predicts_the_same(tmp_path: Path) -> None:
    model = fit("outcome", ["score"])
    model.save(tmp_path / "m.tg")
    again = tg.load(tmp_path / "m.tg")
    assert again.predict(events(seed=5)).equals(model.predict(events(seed=5)))
    assert again.metrics == model.metrics
    model.save(tmp_path / "m.tg")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_flipped_byte_or_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    fit("outcome", ["score"]).save(tmp_path / "m.tg")
    path = tmp_path / "m.tg" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(tg.InputError, match=name):
        tg.load(tmp_path / "m.tg")
    path.unlink()
    with pytest.raises(tg.InputError, match=name):
        tg.load(tmp_path / "m.tg")


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = (fit("outcome", ["score"], seed=s).network.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_new_categories_are_unknown_and_said_so() -> None:
    model = fit("outcome", ["score"])
    model.predict(events(seed=5).with_columns(ward=pl.lit("z")))
    assert any("'ward': 1 categories not seen in training" in note for note in model.notes)


def test_a_missing_column_is_named() -> None:
    model = fit("outcome", ["score"])
    with pytest.raises(tg.InputError, match=r"column 'ward', which the model was trained on"):
        model.predict(events().drop("ward"))


def test_one_class_only_is_an_error() -> None:
    with pytest.raises(tg.InputError, match="at least 2 classes"):
        tg.fit(events().with_columns(outcome=pl.lit("low")), "outcome", id="stay", time="minute", **QUICK)


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(tg.InputError, match="did you mean 'outcome'"):
        tg.fit(events(), "outcom", id="stay", time="minute", **QUICK)


def wave(series: int = 2, steps: int = 200) -> pl.DataFrame:
    hours = np.arange(steps)
    start = np.datetime64("2026-01-01", "us")
    return pl.concat(
        [
            pl.DataFrame(
                {
                    "site": [f"p{i}"] * steps,
                    "when": start + hours.astype("timedelta64[h]"),
                    "load": 10.0 * (i + 1) + np.sin(2 * np.pi * (hours + 3 * i) / 24),
                    "holiday": (hours // 24) % 7 == 0,
                }
            )
            for i in range(series)
        ]
    )


def test_forecasts_of_several_series_go_on_in_time() -> None:
    data = wave()
    model = tg.fit(
        data,
        "load",
        id="site",
        time="when",
        horizon=12,
        lookback=48,
        epochs=25,
        hidden_size=16,
        quiet=True,
        ignore=("holiday",),
    )
    frame = model.predict(data)
    assert frame.height == 24
    assert frame["when"][0] == data["when"].max() + (data["when"][1] - data["when"][0])
    truth = wave(steps=212).group_by("site", maintain_order=True).tail(12)
    assert float((frame["load"] - truth["load"]).abs().mean()) < 0.25
    assert (frame["load_q10"] <= frame["load_q90"]).all()


def test_known_future_columns_must_be_given_and_are_used() -> None:
    data = wave()
    model = tg.fit(data, "load", id="site", time="when", known=("holiday",), horizon=6, **QUICK)
    with pytest.raises(tg.InputError, match="'holiday', whose future is known"):
        model.predict(data)
    future = data.with_columns(
        pl.when(pl.int_range(pl.len()).over("site") >= 190).then(None).otherwise(pl.col("load")).alias("load")
    )
    frame = model.predict(future)
    assert frame["when"][0] == data["when"][190]


def test_evaluation_from_a_start_looks_back_before_it() -> None:
    data = wave(1)
    model = tg.fit(data[:150], "load", time="when", horizon=6, lookback=24, **QUICK)
    figures = model.evaluate(data, start=data["when"][150])
    assert set(figures) >= {"loss", "mae", "rmse", "scaled_mse", "interval_coverage"}
    with pytest.raises(tg.InputError, match="evaluating forecasts"):
        model.evaluate(data, start=data["when"][199])


def test_a_back_test_shows_every_window_beside_the_truth() -> None:
    data = wave(2, 120)
    model = tg.fit(data, "load", id="site", time="when", horizon=4, lookback=24, ignore=("holiday",), **QUICK)
    frame = model.backtest(data, start=data["when"][90])
    assert frame.columns == ["site", "origin", "when", "step", "load_true", "load", "load_q10", "load_q50", "load_q90"]
    assert frame.height == 2 * 27 * 4
    joined = frame.join(data, on=["site", "when"], suffix="_given")
    assert joined.height == frame.height
    assert (joined["load_true"] == joined["load_given"]).all()
    assert ((joined["when"] - joined["origin"]).dt.total_hours() == joined["step"]).all()
    figures = model.evaluate(data, start=data["when"][90])
    assert figures["mae"] == pytest.approx((frame["load"] - frame["load_true"]).abs().mean(), rel=1e-5)
    assert model.backtest(data, start=data["when"][90], every=9).height == 2 * 3 * 4
    with pytest.raises(tg.InputError, match="a model of forecasts"):
        fit("outcome", ["score"]).backtest(events())


@pytest.mark.parametrize(
    ("start", "says"), [("soon", "expected a timestamp"), (250, "expected a timestamp"), ("2027-01-01", "at least")]
)
def test_a_start_that_is_none_is_refused(start: str | int, says: str) -> None:
    data = wave(1, 80)
    model = tg.fit(data, "load", time="when", horizon=4, lookback=24, ignore=("site",), **QUICK)
    with pytest.raises(tg.InputError, match=says):
        model.evaluate(data, start=start)


def test_sequences_without_a_label_are_left_out_and_said_so() -> None:
    some = pl.col("stay").is_in(["s0", "s1", "s40"])
    data = events().with_columns(outcome=pl.when(~some).then(pl.col("outcome")))
    model = tg.fit(data.drop("score"), "outcome", id="stay", time="minute", **QUICK)
    assert any("3 of 60 sequences have no target" in note for note in model.notes)
    figures = model.evaluate(data)
    assert any("3 of 60 sequences have no target" in note for note in model.notes)
    assert figures == pytest.approx(model.evaluate(data.filter(~some)))
    with pytest.raises(tg.InputError, match="expected targets to compare with; got only missing ones"):
        model.evaluate(data.filter(some).with_columns(outcome=pl.lit(None, pl.String)))


def test_predicting_does_not_look_at_the_target() -> None:
    model = fit("score", ["outcome"])
    frame = model.predict(events(seed=5).with_columns(score=pl.lit("unknown")))
    assert frame.equals(model.predict(events(seed=5).drop("score")))


def test_words_of_a_yes_no_target_come_back() -> None:
    yes = pl.col("outcome") == "high"
    data = events().with_columns(outcome=pl.when(yes).then(pl.lit("Yes")).otherwise(pl.lit("No")))
    model = tg.fit(data.drop("score"), "outcome", id="stay", time="minute", **QUICK)
    assert model.predict(data).columns == ["stay", "outcome", "probability_No", "probability_Yes"]
    assert set(model.predict(data)["outcome"]) <= {"Yes", "No"}
    as_booleans = data.with_columns(outcome=pl.col("outcome") == "Yes")
    assert model.evaluate(as_booleans) == pytest.approx(model.evaluate(data))


def test_what_may_not_be_meant_is_noted() -> None:
    data = events().drop("score").with_columns(junk=pl.lit("same")).with_row_index()
    first = data.filter(pl.col("stay").is_duplicated())["index"][0]
    odd = data.with_columns(outcome=pl.when(pl.col("index") == first).then(pl.lit("High")).otherwise(pl.col("outcome")))
    model = tg.fit(odd.drop("index"), "outcome", id="stay", time="minute", **QUICK)
    notes = "\n".join(model.notes)
    assert "column 'junk' is left out: one value throughout" in notes
    assert "it changes in 1 of 60 sequences" in notes
    assert "differ in case or blanks only" in notes


def test_rows_to_forecast_set_the_horizon_where_none_is_asked_for() -> None:
    past = pl.int_range(pl.len()).over("site") < 93
    data = wave(2, 100).with_columns(load=pl.when(past).then(pl.col("load")))
    model = tg.fit(data, "load", id="site", time="when", known=("holiday",), **QUICK)
    assert any("horizon 7" in note for note in model.notes)
    assert model.predict(data).height == 14


class Leaky(tg.Cell):
    gates = ("update", "candidate")

    def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        u, n = self.gate(x, h)
        return torch.lerp(h, torch.tanh(n), torch.sigmoid(u))


def test_a_cell_of_your_own_trains_and_is_known_when_the_model_is_loaded(tmp_path: Path) -> None:
    model = fit("outcome", ["score"], cell=Leaky)
    assert model.blueprint.architecture.cell == "Leaky"
    model.save(tmp_path / "m.tg")
    assert tg.load(tmp_path / "m.tg").predict(events()).equals(model.predict(events()))
    program = f"import tidegate as tg; tg.load({str(tmp_path / 'm.tg')!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "expected a cell that is known here; got 'Leaky'" in done.stderr
    X, y = np.random.default_rng(0).normal(size=(20, 4, 2)), np.arange(20) % 2
    assert tg.Classifier(cell=Leaky, epochs=1).fit(X, y).predict(X).shape == (20,)


def test_a_validation_table_is_read_as_the_training_table() -> None:
    data, held = events().drop("score"), events(30, seed=3).drop("score")
    some_missing = pl.when(pl.int_range(pl.len()) % 5 > 0).then(pl.col("ward")).otherwise(pl.lit("NA"))
    model = tg.fit(
        data.with_columns(ward=some_missing), "outcome", id="stay", time="minute",
        valid=held.with_columns(ward=some_missing), **QUICK,
    )  # fmt: skip
    assert not [note for note in model.notes if "'ward'" in note]
    digits = held.with_columns(ward=pl.when(pl.col("ward") == "a").then(pl.lit("1")).otherwise(pl.lit("2")))
    model = tg.fit(data, "outcome", id="stay", time="minute", valid=digits, **QUICK)
    assert any("'ward': 2 categories not seen in training" in note for note in model.notes)
