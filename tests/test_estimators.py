"""Estimators live inside scikit-learn (F4)."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

import tidegate as tg

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
    assert (tg.Classifier(**QUICK).fit(X, labels).predict(X) == labels).mean() > 0.9


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
