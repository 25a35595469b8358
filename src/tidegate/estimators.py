"""scikit-learn estimators: the same training behind `fit(X, y)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from tidegate.config import make_config
from tidegate.data.table import Table
from tidegate.errors import ConfigError, DataError
from tidegate.estimator_tables import (
    Reader,
    SeriesList,
    is_absent,
    is_name,
    read_series,
    read_targets,
    sequence_table,
    tags_of,
)
from tidegate.run import train
from tidegate.train.progress import progress


@dataclass(eq=False, repr=False)
class Options(BaseEstimator):
    """Options that every estimator has; see `tidegate.config.Config`. `verbose` shows progress."""

    cell: str = "gru"
    hidden_size: int = 64
    layers: int = 1
    _: KW_ONLY
    dropout: float = 0.1
    layer_norm: bool = False
    rms_norm: bool = False
    batch_norm: int = 0
    zoneout: float | tuple[float, ...] = 0.0
    variational_dropout: float | tuple[float, ...] = 0.0
    recurrent_dropout: float = 0.0
    dropconnect: float = 0.0
    init: str | tuple[str, ...] = ()
    norm: str | None = None
    residual: bool = False
    connection: str | None = None
    recompute: bool = False
    loss: str | None = None
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
    clip_adaptive: float | None = None
    clip_quantile: float | None = None
    activation_l2: float = 0.0
    activation_slowness: float = 0.0
    omega: float = 0.0
    precision: str = "float32"
    patience: int | None = 15
    monitor: str = "loss"
    valid: float = 0.15
    seed: int = 0
    device: str = "auto"
    verbose: bool = False

    def _train(self, data: Any, valid: Any, names: tuple[str, ...], task: str) -> None:
        options = {k: v for k, v in self.get_params().items() if k != "verbose"}
        config = make_config({**options, "target": names, "task": task}, f"fitting {type(self).__name__}")
        done = train(data, config, valid=valid, observers=progress(not self.verbose))
        self.model_: Any = done.model
        self.history_ = done.result.history

    def save(self, path: str | Path) -> None:
        """Save the trained model to a folder that `tg.load` reads."""
        check_is_fitted(self, "model_")
        self.model_.save(path)


@dataclass(eq=False, repr=False)
class _Estimator(Options):
    """X is an array or a frame of numbers [N, T, D] or [N, T], a list of N arrays [T_i, D], or a table.

    A table has a row a sequence, with list columns, or a row a step: `id` then names the column that tells sequences
    apart and `time` the one that orders their steps. y holds the targets in the order in which sequences first appear,
    or names the column that does.
    """

    _: KW_ONLY
    bidirectional: bool | None = None
    pooling: str = "last_mean"
    id: str | None = None
    time: str | None = None

    _task = ""

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with targets y; `valid` is a pair (X, y) to validate on instead of a held-out part."""
        reader, per_step = Reader(self.id, self.time), self._task == "tagging"
        y = self._targets(y)
        table, names = sequence_table(reader.table(X), y, per_step=per_step)
        held = None
        if valid is not None:
            other = reader.like(table).table(valid[0])
            held = sequence_table(other, self._targets(valid[1]), per_step=per_step)[0]
        self._train(table, held, names, self._task_of(y))
        self.n_features_in_ = sum(table.columns[name].width for name in self.model_.blueprint.plan.inputs)
        return self

    def _targets(self, y: Any) -> Any:
        return y if is_name(y) else read_targets(y)

    def _task_of(self, y: Any) -> str:  # noqa: ARG002 - some need it
        return self._task

    def _table(self, X: Any) -> Table:
        check_is_fitted(self, "model_")
        plan = self.model_.blueprint.plan
        return Reader(plan.id, plan.time, plan.types).table(X)

    def _figure(self, X: Any, y: str, name: str) -> float:
        """Return a figure of the model on a table with its targets."""
        if y not in self.model_.blueprint.plan.targets:
            raise ConfigError(
                f"scoring {type(self).__name__}",
                expected=f"{self.model_.blueprint.plan.targets[0]!r}, the target it was trained on",
                got=repr(y),
                hint="give y as an array",
            )
        return self.model_.evaluate(self._table(X))[name]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.two_d_array = True
        tags.input_tags.allow_nan = True
        tags.target_tags.required = True
        return tags


@dataclass(eq=False, repr=False)
class _OfClasses(_Estimator):
    """Options of those that tell classes apart."""

    _: KW_ONLY
    label_smoothing: float = 0.0
    class_weight: str | float | dict[Any, float] | None = None
    focal_gamma: float = 2.0
    ldam_margin: float = 0.5
    ldam_scale: float = 30.0
    logit_adjustment: float = 0.0
    logit_adjustment_after: float = 0.0


@dataclass(eq=False, repr=False)
class Classifier(ClassifierMixin, _OfClasses):
    """A class for each sequence. y is [N] labels, or [N, C] zeros and ones for several labels each."""

    _: KW_ONLY
    sampling: str = "all"

    def _task_of(self, y: Any) -> str:
        return "multilabel" if np.ndim(y) == 2 else "classification"

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with labels y; `valid` is a pair (X, y)."""
        super().fit(X, y, valid=valid)
        task = self.model_.blueprint.task
        if task.task == "multilabel":
            self.classes_ = np.arange(task.outputs)
        else:
            self.classes_ = _classes(task, y if is_name(y) else np.ravel(np.asarray(y)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return labels [N], of the type that was given, or zeros and ones [N, C]."""
        probability = self.predict_proba(X)
        if self.model_.blueprint.task.task == "multilabel":
            return (probability > 0.5).astype(int)
        return self.classes_[probability.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, [N, C], in the order of `classes_`."""
        table = self._table(X)
        return _probabilities(self.model_.blueprint.task, self.model_.predict(table))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of sequences that are classified right, of several labels all of them."""
        check_is_fitted(self, "model_")
        if is_name(y):
            return self._figure(X, y, "accuracy")
        right = self.predict(X) == read_targets(y)
        return float(np.average(right if right.ndim == 1 else right.all(1), weights=sample_weight))


@dataclass(eq=False, repr=False)
class Regressor(RegressorMixin, _Estimator):
    """A number, or several, for each sequence. y is [N] or [N, C].

    With `loss="quantile"` or a distribution (`"gaussian"`, `"poisson"` …) there are `quantiles` too.
    """

    _: KW_ONLY
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    _task = "regression"

    def predict(self, X: Any) -> np.ndarray:
        """Return numbers [N] or [N, C]."""
        table = self._table(X)
        frame = self.model_.predict(table)
        values = np.stack([frame[n].to_numpy() for n in self.model_.blueprint.plan.targets], axis=1)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict_quantiles(self, X: Any) -> np.ndarray:
        """Return the quantiles, lowest first, [N, Q] or [N, C, Q]; a model with a point loss has none."""
        table = self._table(X)
        task: Any = self.model_.blueprint.task
        _check_quantiles(task, self.quantiles, "Regressor(loss='quantile')")
        frame = self.model_.predict(table)
        names = [[f"{target}_q{100 * q:g}" for q in task.quantiles] for target in task.targets]
        values = np.stack([frame.select(each).to_numpy() for each in names], axis=1)
        return values[:, 0] if values.shape[1] == 1 else values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of the variance that is explained, R²."""
        check_is_fitted(self, "model_")
        return self._figure(X, y, "r2") if is_name(y) else super().score(X, y, sample_weight)


@dataclass(eq=False, repr=False)
class Tagger(_OfClasses):
    """A class for each step. y is [N, T] labels or a list of [T_i]; NaN and None are steps without a tag.

    With `bptt_steps` N, long sequences are trained on N steps at a time, the state carried on (truncated
    backpropagation through time): memory does not grow with their length, and layers run forward only.
    """

    _: KW_ONLY
    bptt_steps: int | None = None

    _task = "tagging"

    def _targets(self, y: Any) -> Any:
        return y

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with labels y per step; `valid` is a pair (X, y)."""
        super().fit(X, y, valid=valid)
        self.classes_ = _classes(self.model_.blueprint.task, y if is_name(y) else np.concatenate(tags_of(y)))
        return self

    def predict(self, X: Any) -> list[np.ndarray]:
        """Return a list of N label arrays [T_i]."""
        table = self._table(X)
        probability = _probabilities(self.model_.blueprint.task, self.model_.predict(table))
        return np.split(self.classes_[probability.argmax(1)], table.offsets[1:-1])

    def score(self, X: Any, y: Any) -> float:
        """Return the share of the steps with a tag that are tagged right."""
        check_is_fitted(self, "model_")
        if is_name(y):
            return self._figure(X, y, "accuracy")
        guess, truth = np.concatenate(self.predict(X)), np.concatenate(tags_of(y))
        known = ~is_absent(truth)
        if len(guess) != len(truth) or not known.any():
            raise DataError(
                "scoring a Tagger",
                expected=f"tags for {len(guess)} steps",
                got=f"{int(known.sum())} in {len(truth)} steps",
                hint="check that X and y belong together",
            )
        return float((guess[known] == truth[known]).mean())


def _classes(task: Any, y: Any) -> np.ndarray:
    """Return the classes of a task, in its order, in the type in which y gave them."""
    return np.array(task.classes) if is_name(y) else np.unique(y[~is_absent(y)])


def _probabilities(task: Any, frame: Any) -> np.ndarray:
    names = task.targets if task.task == "multilabel" else task.classes
    return np.stack([frame[f"probability_{name}"].to_numpy() for name in names], axis=1)


@dataclass(eq=False, repr=False)
class Forecaster(Options):
    """The next `horizon` steps of a series.

    X is one series [T] or [T, C], or a list (or tuple) of them; a list of lists is a list of series. NaN is missing.
    Forecasts begin after the last step given: where a series ends in missing values, the model's own forecasts
    stand in for them.
    """

    _: KW_ONLY
    horizon: int = 1
    lookback: int | None = None
    channels: str = "shared"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    def fit(self, X: Any, y: Any = None, *, valid: Any = None) -> Self:  # noqa: ARG002 - pipelines pass y
        """Train on series X; y is ignored, and `valid` is series to validate on instead of a held-out part."""
        series = read_series(X)
        held = read_series(valid).table() if valid is not None else None
        self._train(series.table(), held, series.names, "forecasting")
        self._series = series
        self.n_features_in_ = len(series.names)
        return self

    def predict(self, X: Any = None) -> np.ndarray | list[np.ndarray]:
        """Return the steps after X (default: after the training series): [S] or [S, C], or a list for several."""
        check_is_fitted(self, "model_")
        series = self._series if X is None else self._read(X)
        return _as_given(series, self._ahead(series, self._filled(series), series.names))

    def predict_quantiles(self, X: Any = None) -> np.ndarray | list[np.ndarray]:
        """Return the quantiles, lowest first, of what `predict` gives: [S, Q] or [S, C, Q], or a list for several."""
        check_is_fitted(self, "model_")
        series, task = self._series if X is None else self._read(X), self.model_.blueprint.task
        _check_quantiles(task, self.quantiles, "Forecaster(quantiles=(0.1, 0.5, 0.9))")
        names = [f"{target}_q{100 * q:g}" for target in series.names for q in task.quantiles]
        found = self._ahead(series, self._filled(series), names)
        return _as_given(series, found.reshape(*found.shape[:2], len(series.names), -1))

    def _filled(self, series: SeriesList) -> list[np.ndarray]:
        """Return the series up to their last steps, forecasts in the place of missing values at their ends."""
        rows = [_known_part(row, i) for i, row in enumerate(series.rows)]
        while any(len(row) < len(given) for row, given in zip(rows, series.rows, strict=True)):
            pairs = zip(rows, self._ahead(series, rows, series.names), series.rows, strict=True)
            rows = [np.concatenate([row, after[: len(given) - len(row)]]) for row, after, given in pairs]
        return rows

    def _read(self, X: Any) -> SeriesList:
        series, targets = read_series(X), self.model_.blueprint.plan.targets
        if series.names != targets:
            raise DataError(
                "reading a series",
                expected=f"{len(targets)} values a step, as in training",
                got=f"{len(series.names)}",
                hint="pass a list of arrays for several series",
            )
        return series

    def _ahead(self, series: SeriesList, rows: list[np.ndarray], names: Sequence[str]) -> np.ndarray:
        """Return columns of the forecasts after `rows`, [N, S, C]."""
        values = self.model_.predict(series.table(rows)).select(names).to_numpy()
        return values.reshape(len(rows), -1, len(names))

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002 - pipelines pass y
        """Return minus the mean absolute error over every window of X."""
        check_is_fitted(self, "model_")
        return -self.model_.evaluate(self._read(X).table())["mae"]


def _as_given(series: SeriesList, ahead: np.ndarray) -> np.ndarray | list[np.ndarray]:
    """Return forecasts [N, S, C, …] as the series were given: without C where they had none, one or a list."""
    out = [steps[:, 0] if series.flat else steps for steps in ahead]
    return out if series.several else out[0]


def _check_quantiles(task: Any, asked: Sequence[float], hint: str) -> None:
    """Raise `ConfigError` unless a model gives quantiles."""
    if not task.quantiles:
        raise ConfigError(
            "predicting quantiles",
            expected="a model trained to give them",
            got=f"loss={task.point!r}, quantiles={asked!r}",
            hint=hint,
        )


def _known_part(row: np.ndarray, index: int) -> np.ndarray:
    """Return a series up to its last step with any value."""
    known = np.flatnonzero(~np.isnan(row).all(1))
    if not known.size:
        raise DataError(
            "forecasting", expected="a series with values", got=f"none in series {index}", hint="leave it out"
        )
    return row[: known[-1] + 1]
