"""scikit-learn estimators: the same training behind `fit(X, y)`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from tidegate.config import make_config
from tidegate.data.table import Table
from tidegate.errors import ConfigError
from tidegate.estimator_tables import sequence_table, series_table
from tidegate.run import train
from tidegate.train.progress import progress


@dataclass(eq=False, repr=False)
class _Options(BaseEstimator):
    """Options that every estimator has; see `tidegate.config.Config`. `verbose` shows progress."""

    cell: str = "gru"
    hidden_size: int = 64
    layers: int = 1
    _: KW_ONLY
    dropout: float = 0.1
    norm: str | None = None
    residual: bool = False
    connection: str | None = None
    loss: str = "mse"
    epochs: int = 50
    batch_size: int = 32
    lr: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: str = "cosine"
    lr_factor: float = 0.1
    plateau_epochs: int = 5
    warmup_steps: int = 0
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    patience: int | None = 15
    monitor: str = "loss"
    valid: float = 0.15
    seed: int = 0
    device: str = "auto"
    verbose: bool = False

    def _train(self, table: Table, valid: Table | None, names: tuple[str, ...], task: str) -> None:
        options = {k: v for k, v in self.get_params().items() if k != "verbose"}
        config = make_config({**options, "target": names, "task": task}, f"fitting {type(self).__name__}")
        done = train(table, config, valid=valid, observers=progress(not self.verbose))
        self.model_, self.history_ = done.model, done.result.history


@dataclass(eq=False, repr=False)
class _Estimator(_Options):
    """X is [N, T, D], [N, T] or a list of N arrays [T_i, D]."""

    _: KW_ONLY
    bidirectional: bool | None = None
    pooling: str = "last_mean"

    _task = ""

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with targets y; `valid` is a pair (X, y) to validate on instead of a held-out part."""
        table, names = sequence_table(X, y, per_step=self._task == "tagging")
        held = sequence_table(*valid, per_step=self._task == "tagging")[0] if valid is not None else None
        self._train(table, held, names, self._task_of(y))
        self.n_features_in_ = table.columns["x"].width
        return self

    def _task_of(self, y: Any) -> str:  # noqa: ARG002 - some need it
        return self._task

    def _predict(self, X: Any) -> Any:
        check_is_fitted(self, "model_")
        return self.model_.predict(sequence_table(X)[0])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = True
        tags.target_tags.required = True
        return tags


class Classifier(ClassifierMixin, _Estimator):
    """A class for each sequence (D1). y is [N] labels, or [N, C] zeros and ones for several labels each."""

    def _task_of(self, y: Any) -> str:
        return "multilabel" if np.ndim(y) == 2 else "classification"

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X [N, T, D] (or a list of [T_i, D]) with labels y; `valid` is a pair (X, y)."""
        super().fit(X, y, valid=valid)
        task = self.model_.blueprint.task
        self.classes_ = np.array(task.classes) if task.task == "classification" else np.arange(task.outputs)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return labels [N], or zeros and ones [N, C]."""
        frame = self._predict(X)
        names = self.model_.blueprint.plan.targets
        if len(names) > 1:
            return np.stack([frame[n].to_numpy() for n in names], axis=1).astype(int)
        return frame[names[0]].to_numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, [N, C], in the order of `classes_`."""
        frame = self._predict(X)
        return np.stack([frame[c].to_numpy() for c in frame.columns if c.startswith("probability_")], axis=1)


class Regressor(RegressorMixin, _Estimator):
    """A number, or several, for each sequence (D2). y is [N] or [N, C]."""

    _task = "regression"

    def predict(self, X: Any) -> np.ndarray:
        """Return numbers [N] or [N, C]."""
        frame = self._predict(X)
        values = np.stack([frame[n].to_numpy() for n in self.model_.blueprint.plan.targets], axis=1)
        return values[:, 0] if values.shape[1] == 1 else values


class Tagger(_Estimator):
    """A class for each step (D3). y is [N, T] labels or a list of [T_i]."""

    _task = "tagging"

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with labels y per step; `valid` is a pair (X, y)."""
        super().fit(X, y, valid=valid)
        self.classes_ = np.array(getattr(self.model_.blueprint.task, "classes"))  # noqa: B009 - a tagger has them
        return self

    def predict(self, X: Any) -> list[np.ndarray]:
        """Return a list of N label arrays [T_i]."""
        tags = self._predict(X)[self.model_.blueprint.plan.targets[0]].to_numpy()
        lengths = np.cumsum([len(x) for x in X])
        return np.split(tags, lengths[:-1])

    def score(self, X: Any, y: Any) -> float:
        """Return the share of steps that are tagged right."""
        guess = np.concatenate(self.predict(X))
        return float((guess == np.concatenate([np.asarray(v) for v in y])).mean())


@dataclass(eq=False, repr=False)
class Forecaster(_Options):
    """The next `horizon` steps of a series (D4). `fit(y)` takes [T], [T, C] or a list of them; `predict()` goes on."""

    _: KW_ONLY
    horizon: int = 1
    lookback: int | None = None
    channels: str = "shared"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def fit(self, y: Any, *, valid: Any = None) -> Self:
        """Train on one series [T] or [T, C], or a list of series."""
        table, names = series_table(y)
        held = series_table(valid)[0] if valid is not None else None
        self._train(table, held, names, "forecasting")
        self._series = y
        return self

    def predict(self, y: Any = None) -> np.ndarray | list[np.ndarray]:
        """Return the steps after `y` (default: after the training series): [S] or [S, C], or a list for a list."""
        check_is_fitted(self, "model_")
        y = self._series if y is None else y
        frame = self.model_.predict(series_table(y)[0])
        names = self.model_.blueprint.plan.targets
        values = np.stack([frame[n].to_numpy() for n in names], axis=1).reshape(-1, self.horizon, len(names))
        several = isinstance(y, list) and np.ndim(y[0]) > 0
        single = len(names) == 1 and np.ndim(y[0] if several else y) == 1
        out = [v[:, 0] if single else v for v in values]
        return out if several else out[0]

    def score(self, y: Any, _: Any = None) -> float:
        """Return minus the mean absolute error over every window of `y`."""
        if y is None:
            raise ConfigError("scoring a Forecaster", expected="a series", got="None", hint="score(y)")
        return -self.model_.evaluate(series_table(y)[0])["mae"]
