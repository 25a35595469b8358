"""Estimators live inside scikit-learn (F4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import tidegate as tg
from tidegate.errors import ConfigError

QUICK = {"epochs": 6, "hidden_size": 8, "lr": 0.02, "batch_size": 8}


def waves(count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = np.arange(count) % 2
    X = random.normal(size=(count, 10, 2)) * 0.3 + np.where(y, 1.0, -1.0)[:, None, None]
    return X, np.array(["down", "up"])[y]


def test_classifier_in_clone_pipeline_and_searches() -> None:
    X, y = waves()
    model = tg.Classifier(**QUICK)
    assert clone(model).get_params() == model.get_params()
    pipe = Pipeline([("double", FunctionTransformer(lambda a: 2 * a)), ("rnn", model)]).fit(X, y)
    assert pipe.score(X, y) > 0.9
    assert cross_val_score(model, X, y, cv=2).min() > 0.8
    search = GridSearchCV(model, {"hidden_size": [4, 8]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    proba = search.predict_proba(X)
    assert proba.shape == (48, 2)
    assert (search.classes_[proba.argmax(1)] == search.predict(X)).all()


def test_uneven_lists_are_sequences() -> None:
    X, y = waves()
    uneven = [x[: 3 + i % 8] for i, x in enumerate(X)]
    assert tg.Classifier(**QUICK).fit(uneven, y).score(uneven, y) > 0.9


def test_several_labels_each() -> None:
    X, y = waves()
    labels = np.stack([y == "up", y == "down"], axis=1).astype(int)
    model = tg.Classifier(**QUICK).fit(X, labels)
    assert (model.predict(X) == labels).mean() > 0.9
    assert model.score(X, labels) == (model.predict(X) == labels).all(1).mean()


def test_regressor_one_and_several_targets() -> None:
    X, _ = waves()
    total = X.sum((1, 2))
    assert tg.Regressor(**{**QUICK, "epochs": 25}).fit(X, total).score(X, total) > 0.8
    assert tg.Regressor(**QUICK).fit(X, np.stack([total, -total], 1)).predict(X).shape == (48, 2)


def test_tagger_tags_each_step() -> None:
    X, _ = waves()
    tags = [np.where(x[:, 0] > 0, "pos", "neg") for x in X]
    model = tg.Tagger(**{**QUICK, "epochs": 20}).fit(X, tags)
    assert model.score(X, tags) > 0.9
    assert [len(p) for p in model.predict(X[:3])] == [10, 10, 10]


def test_forecaster_goes_on() -> None:
    series = np.sin(np.arange(300) / 5)
    model = tg.Forecaster(horizon=10, lookback=40, epochs=20, hidden_size=16).fit(series)
    assert np.abs(model.predict() - np.sin(np.arange(300, 310) / 5)).mean() < 0.25
    assert [p.shape for p in model.predict([series[:100], series[:150]])] == [(10,), (10,)]


def test_wrong_y_is_told() -> None:
    X, y = waves()
    with pytest.raises(tg.InputError, match=r"\[48\] or \[48, C\]"):
        tg.Classifier(**QUICK).fit(X, y[:-1])


def problem(kind: str) -> tuple[Any, Any, Any]:
    """An estimator of each kind with data to fit it on."""
    X, y = waves(24)
    quick = {**QUICK, "epochs": 2, "valid": 0.3}
    return {
        "classifier": (tg.Classifier(**quick), X, y),
        "regressor": (tg.Regressor(**quick), X, X.sum((1, 2))),
        "tagger": (tg.Tagger(**quick), X, np.where(X[:, :, 0] > 0, "pos", "neg")),
        "forecaster": (tg.Forecaster(**quick, horizon=2, lookback=4), list(X[:, :, 0]), None),
    }[kind]


KINDS = ["classifier", "regressor", "tagger", "forecaster"]


@pytest.mark.parametrize("kind", KINDS)
def test_inside_clone_pipeline_search_and_validation(kind: str) -> None:
    model, X, y = problem(kind)
    assert clone(model.set_params(hidden_size=5)).get_params() == model.get_params()
    pipe = Pipeline([("same", FunctionTransformer()), ("rnn", model)]).fit(X, y)
    assert len(pipe.predict(X)) == 24
    assert np.isfinite(pipe.score(X, y))
    assert np.isfinite(cross_val_score(model, X, y, cv=2)).all()
    search = GridSearchCV(model, {"hidden_size": np.array([3, 4])}, cv=2).fit(X, y)
    assert search.best_params_["hidden_size"] in (3, 4)
    assert len(search.predict(X)) == 24


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_fitted_says_so(kind: str) -> None:
    model, X, y = problem(kind)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(NotFittedError):
        model.score(X, y)


def test_a_series_in_time_series_split() -> None:
    model = tg.Forecaster(**{**QUICK, "epochs": 2}, horizon=2, lookback=4)
    assert np.isfinite(cross_val_score(model, np.sin(np.arange(120.0)), cv=TimeSeriesSplit(2))).all()


def forecaster(series: Any, **options: Any) -> tg.Forecaster:
    return tg.Forecaster(**{**QUICK, "epochs": 2, "horizon": 3, "lookback": 6, **options}).fit(series)


def test_a_tuple_is_several_series() -> None:
    s = np.sin(np.arange(60.0))
    model = forecaster((s, 2 * s))
    assert [p.shape for p in model.predict()] == [(3,), (3,)]
    assert np.array_equal(model.predict(), model.predict([s.tolist(), (2 * s).tolist()]))
    assert model.predict(np.stack([s], 1)).shape == (3, 1)
    assert model.predict(s.tolist()).shape == (3,)


def test_a_changed_horizon_waits_for_the_next_fit() -> None:
    model = forecaster(np.sin(np.arange(60.0)))
    before = model.predict()
    assert (model.set_params(horizon=5).predict() == before).all()


@pytest.mark.parametrize("gap", [2, 3, 7])
def test_forecasts_begin_after_a_missing_end(gap: int) -> None:
    s = np.sin(np.arange(60.0))
    model = forecaster(s)
    filled = s
    while len(filled) < 60 + gap:
        filled = np.concatenate([filled, model.predict(filled)])
    expected = model.predict(filled[: 60 + gap])
    both = model.predict([np.concatenate([s, [np.nan] * gap]), s])
    assert np.allclose(both[0], expected, atol=1e-6)
    assert np.allclose(both[1], model.predict(s), atol=1e-6)
    masked = np.ma.array(np.concatenate([s, np.zeros(gap)]), mask=[False] * 60 + [True] * gap)
    assert np.allclose(model.predict(masked), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("series", "named"),
    [
        (np.full(5, np.nan), "a series with values"),
        (np.zeros((5, 2)), "1 values a step"),
        (["a", "b"], "numbers"),
        ([], r"\[T\] or \[T, C\]"),
        (np.array([1.0, np.inf]), "step 1 of series 0"),
    ],
)
def test_a_series_that_cannot_be_is_told(series: Any, named: str) -> None:
    model = forecaster(np.sin(np.arange(60.0)))
    with pytest.raises(tg.InputError, match=named):
        model.predict(series)


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_a_column_of_targets_is_taken_as_flat(kind: str) -> None:
    model, X, y = problem(kind)
    flat = model.fit(X, y).predict(X)
    with pytest.warns(DataConversionWarning):
        model.fit(X, y[:, None])
    assert model.predict(X).shape == (24,)
    assert (model.predict(X) == flat).all()


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 7]),
        np.array([3, 7], dtype=object),
        np.array([3, 7], dtype=np.int8),
        np.array([0.5, 1.5]),
        np.array([False, True]),
        np.array(["a", "b"], dtype=object),
        np.array([b"a", b"b"]),
    ],
)
def test_labels_keep_their_type(labels: np.ndarray) -> None:
    model, X, _ = problem("classifier")
    y = labels[np.arange(24) % 2]
    model.fit(X, y)
    assert model.classes_.dtype == labels.dtype
    assert (model.classes_ == labels).all()
    guess = model.predict(X)
    assert guess.dtype == labels.dtype
    assert [type(v) for v in model.classes_.tolist()] == [type(v) for v in labels.tolist()]
    assert model.score(X, y) == (guess == y).mean()


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_a_missing_target_is_named(kind: str, missing: Any) -> None:
    model, X, y = problem(kind)
    y = y.astype(object)
    y[[5, 7]] = missing
    with pytest.raises(tg.InputError, match="2 missing, first in row 5"):
        model.fit(X, y)
    with pytest.raises(tg.InputError, match="first in row 3"):
        model.fit(X, np.ma.array(problem(kind)[2], mask=np.arange(24) == 3))


def test_objects_of_numbers_are_numbers() -> None:
    model, X, y = problem("regressor")
    plain = model.fit(X, y).predict(X)
    assert (model.fit(X, y.astype(object)).predict(X) == plain).all()


def test_labels_of_several_types_are_told() -> None:
    model, X, _ = problem("classifier")
    with pytest.raises(tg.InputError, match="expected number in every row; got 'b' of type str in row 1"):
        model.fit(X, np.array([1, "b"] * 12, dtype=object))


def test_missing_tags_are_left_out() -> None:
    model, X, tags = problem("tagger")
    tags = tags.astype(object)
    model.fit(X, tags)
    right = model.score(X, tags)
    wrong = [row != guess for row, guess in zip(tags, model.predict(X), strict=True)]
    partly = [np.where(w, None, row) for w, row in zip(wrong, tags, strict=True)]
    assert right < 1.0
    assert model.score(X, partly) == 1.0
    assert list(model.fit(X, partly).classes_) == ["neg", "pos"]


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_a_frame_of_numbers_is_a_row_a_sequence(frame: Any) -> None:
    X, y = waves(24)
    wide, model = frame(X[:, :, 0]), tg.Classifier(**QUICK)
    flat = model.fit(X[:, :, 0], y)
    expected = flat.predict_proba(X[:, :, 0])
    assert (model.fit(wide, y).predict_proba(wide) == expected).all()
    assert np.isfinite(cross_val_score(model, wide, y, cv=2)).all()


def test_a_frame_of_lists_is_a_row_a_sequence() -> None:
    X, y = waves(24)
    nested = pl.DataFrame({"a": X[:, :, 0].tolist(), "b": X[:, :, 1].tolist(), "kind": list("uv" * 12)})
    model = tg.Classifier(**QUICK).fit(nested, y)
    assert model.n_features_in_ == 3
    assert model.score(nested, y) > 0.9
    assert np.isfinite(cross_val_score(model, nested.to_pandas(), y, cv=2)).all()


@pytest.mark.parametrize("by_name", [True, False])
def test_a_long_table(by_name: bool) -> None:
    X, y = waves(24)
    long = pl.DataFrame(
        [
            {"stay": f"s{i}", "minute": t, "a": X[i, t, 0], "b": X[i, t, 1], "label": str(y[i])}
            for i in range(24)
            for t in range(4 + i % 3)
        ]
    )
    rows = long if by_name else long.drop("label")
    target = "label" if by_name else y
    model = clone(tg.Classifier(**QUICK, id="stay", time="minute")).fit(rows, target, valid=(rows, target))
    assert model.predict(long.drop("label")).tolist() == y.tolist()
    assert model.score(rows, target) == 1.0
    assert model.n_features_in_ == 2
    backwards = long.reverse().drop("label")
    assert model.predict(backwards).tolist() == y[::-1].tolist()


def test_a_long_table_of_tags() -> None:
    X, _ = waves(24)
    long = pl.DataFrame([{"i": i, "x": v, "tag": "pos" if v > 0 else "neg"} for i in range(24) for v in X[i, :, 0]])
    model = tg.Tagger(**QUICK, id="i").fit(long, "tag")
    assert [len(p) for p in model.predict(long)] == [10] * 24
    assert model.score(long, "tag") > 0.8
    with pytest.raises(tg.InputError, match="expected 'tag', the target it was trained on"):
        model.score(long, "x")


def test_a_flat_table_without_id_is_told() -> None:
    X, y = waves(24)
    frame = pl.DataFrame({"a": X[:, 0, 0], "kind": list("uv" * 12)})
    with pytest.raises(tg.InputError, match=r"column 'kind' of String.*tg\.fit"):
        tg.Classifier(**QUICK).fit(frame, y)


def test_what_is_masked_is_missing() -> None:
    X, y = waves(24)
    mask = np.random.default_rng(1).random(X.shape) < 0.2
    masked, holed = np.ma.array(X, mask=mask), np.where(mask, np.nan, X)
    model = tg.Classifier(**QUICK).fit(holed, y)
    expected = model.predict_proba(holed)
    assert (model.predict_proba(masked) == expected).all()
    assert (model.predict_proba(list(masked)) == expected).all()
    assert (model.fit(masked, y).predict_proba(holed) == expected).all()


@pytest.mark.parametrize(
    "options",
    [
        {"layer_norm": True, "zoneout": 0.1, "init": "orthogonal"},
        {"cell": "lstm", "batch_norm": 5, "zoneout": (0.1, 0.2), "init": ("orthogonal", "forget")},
        {"dropconnect": 0.3, "variational_dropout": (0.0, 0.2), "norm": "rms", "rms_norm": True},
    ],
)
def test_techniques_inside_the_recurrence_are_options_and_are_saved(options: dict[str, Any], tmp_path: Path) -> None:
    """A10, A11: the estimators, `tg.fit` and the command line's configuration take what a cell takes."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 6, 2)), np.arange(30) % 2
    fitted = tg.Classifier(hidden_size=4, epochs=2, **options).fit(X, y)
    cell = fitted.model_.network.recurrent.cells[0]
    for name, value in options.items():
        if hasattr(cell, name) and name != "init":
            assert getattr(cell, name) == value
    if "dropconnect" in options:
        assert cell.noise.weights == 0.3
    if "init" in options:
        assert (cell.weight_hh[:4] @ cell.weight_hh[:4].T - torch.eye(4)).abs().max() < 0.2
    fitted.model_.save(tmp_path / "model.tg")
    again = tg.load(tmp_path / "model.tg")
    assert torch.equal(again.network.recurrent.cells[0].weight_hh, cell.weight_hh)


def test_forecasts_have_quantiles_and_estimators_are_saved(tmp_path: Path) -> None:
    one = np.sin(np.arange(60) * 0.5)
    two = np.stack([one, one + 1], 1)
    for series, shape in ((one, (3, 2)), (two, (3, 2, 2)), ([one, one], (3, 2))):
        model = forecaster(series, quantiles=(0.2, 0.8))
        found = model.predict_quantiles()
        first = found[0] if isinstance(series, list) else found
        assert first.shape == shape
        frame = model.model_.predict(model._series.table(model._series.rows))
        name = model._series.names[0]
        low = first[..., 0] if first.ndim == 2 else first[:, 0, 0]
        np.testing.assert_array_equal(low, frame[f"{name}_q20"].to_numpy()[:3])
        model.save(tmp_path / str(shape))
        again = tg.load(tmp_path / str(shape)).predict(model._series.table(model._series.rows))
        assert again.equals(frame)
    with pytest.raises(ConfigError, match=r"predicting quantiles.*try: Forecaster\(quantiles"):
        forecaster(one, quantiles=()).predict_quantiles()
    with pytest.raises(NotFittedError):
        tg.Forecaster().save(tmp_path / "none")
