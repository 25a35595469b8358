"""scikit-learn estimators: the same training behind `fit(X, y)`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from tidegate.config import make_config
from tidegate.errors import ConfigError
from tidegate.estimator_tables import sequence_table
from tidegate.run import train
from tidegate.train.progress import progress


class _Estimator(BaseEstimator):
    """Options are those of `tidegate.config.Config`; X is [N, T, D], [N, T] or a list of N arrays [T_i, D]."""

    _task = ""

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 64,
        layers: int = 1,
        *,
        bidirectional: bool | None = None,
        dropout: float = 0.1,
        norm: str | None = None,
        residual: bool = False,
        connection: str | None = None,
        pooling: str = "last_mean",
        loss: str = "mse",
        epochs: int = 50,
        batch_size: int = 32,
        lr: float = 3e-3,
        optimizer: str = "adamw",
        weight_decay: float = 1e-2,
        schedule: str = "cosine",
        clip_norm: float | None = 1.0,
        clip_value: float | None = None,
        patience: int | None = 15,
        valid: float = 0.15,
        seed: int = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        self.cell = cell
        self.hidden_size = hidden_size
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.norm = norm
        self.residual = residual
        self.connection = connection
        self.pooling = pooling
        self.loss = loss
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.patience = patience
        self.valid = valid
        self.seed = seed
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sequences X with targets y; `valid` is a pair (X, y) to validate on instead of a held-out part."""
        table, names = sequence_table(X, y, per_step=self._task == "tagging")
        held = sequence_table(*valid, per_step=self._task == "tagging")[0] if valid is not None else None
        options = {k: v for k, v in self.get_params().items() if k != "verbose"}
        config = make_config({**options, "target": names, "task": self._task_of(y)}, f"fitting {type(self).__name__}")
        done = train(table, config, valid=held, observers=progress(not self.verbose))
        self.model_, self.history_ = done.model, done.result.history
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


class Forecaster(_Estimator):
    """The next `horizon` steps of a series (D4). `fit(y)` takes [T], [T, C] or a list of them; `predict()` goes on."""

    _task = "forecasting"

    def __init__(
        self,
        cell: str = "gru",
        hidden_size: int = 64,
        layers: int = 1,
        *,
        horizon: int = 1,
        lookback: int | None = None,
        channels: str = "shared",
        quantiles: tuple[float, ...] = (0.1, 0.5, 0.9),
        dropout: float = 0.1,
        norm: str | None = None,
        loss: str = "mse",
        epochs: int = 50,
        batch_size: int = 32,
        lr: float = 3e-3,
        optimizer: str = "adamw",
        weight_decay: float = 1e-2,
        schedule: str = "cosine",
        clip_norm: float | None = 1.0,
        patience: int | None = 15,
        valid: float = 0.15,
        seed: int = 0,
        device: str = "auto",
        verbose: bool = False,
    ) -> None:
        super().__init__(
            cell,
            hidden_size,
            layers,
            dropout=dropout,
            norm=norm,
            loss=loss,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            optimizer=optimizer,
            weight_decay=weight_decay,
            schedule=schedule,
            clip_norm=clip_norm,
            patience=patience,
            valid=valid,
            seed=seed,
            device=device,
            verbose=verbose,
        )
        self.horizon = horizon
        self.lookback = lookback
        self.channels = channels
        self.quantiles = quantiles

    def fit(self, y: Any, *, valid: Any = None) -> Self:  # type: ignore[override]
        """Train on one series [T] or [T, C], or a list of series."""
        from tidegate.estimator_tables import series_table

        table, names = series_table(y)
        held = series_table(valid)[0] if valid is not None else None
        options = {k: v for k, v in self.get_params().items() if k != "verbose"}
        config = make_config({**options, "target": names, "task": self._task}, "fitting Forecaster")
        done = train(table, config, valid=held, observers=progress(not self.verbose))
        self.model_, self.history_, self._series = done.model, done.result.history, y
        return self

    def predict(self, y: Any = None) -> np.ndarray | list[np.ndarray]:
        """Return the steps after `y` (default: after the training series): [S] or [S, C], or a list for a list."""
        from tidegate.estimator_tables import series_table

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
        from tidegate.estimator_tables import series_table

        if y is None:
            raise ConfigError("scoring a Forecaster", expected="a series", got="None", hint="score(y)")
        return -self.model_.evaluate(series_table(y)[0])["mae"]
