"""A trained model: predict, evaluate, save."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tidegate.blueprint import Blueprint
from tidegate.data.batch import Batch
from tidegate.data.features import Encoded
from tidegate.data.horizon import future, steps_with_truth
from tidegate.data.infer import TIMESTAMP
from tidegate.data.loader import Forecasts, Loader
from tidegate.data.restore import restored
from tidegate.data.schema import check_columns
from tidegate.data.source import Source, open_source
from tidegate.data.spans import Spans
from tidegate.data.table import Table, load_table
from tidegate.data.windows import window_origins
from tidegate.errors import ConfigError, DataError
from tidegate.tasks.base import Accumulator
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import CarryingNetwork, Network
from tidegate.tasks.targets import labelled
from tidegate.train.evaluation import evaluate, predictions
from tidegate.trained import TrainedModel

_BATCH, _STEPS = 256, 1 << 20
"""Sequences that are read at once, and their steps, padding included."""


class Model(TrainedModel[Blueprint]):
    """A model trained on a table: what `tg.fit` and `tg.load` return for tasks on tables."""

    network: Network

    def __repr__(self) -> str:
        targets = ", ".join(self.blueprint.plan.targets)
        return f"Model({self.blueprint.task.task} of {targets}: {self._described()})"

    def predict(self, data: Any) -> pl.DataFrame:
        """Predict and return a frame that joins back to the input by id and time.

        Classification and regression give a row per sequence; tagging one per step; forecasting one per series
        and step ahead, from the end of each series (its last row with any target).
        """
        if isinstance(self.blueprint.task, Forecasting):
            table, source = self._read(data)
            frame = self._forecast(table)
        else:
            # What is to be predicted is not looked at: it may be absent, or filled with anything.
            table, source = self._read(data, without=self.blueprint.plan.targets)
            self._check_names(table)
            loader = self._sequences(table, np.arange(len(table.ids)), targets=False)
            per_step = self.blueprint.task.per_step
            frame = self._per_step(table, loader) if per_step else self._per_sequence(table, loader)
        return _as_given(frame, table, source)

    def backtest(self, data: Any, *, start: Any = None, every: int = 1) -> pl.DataFrame:
        """Return the forecasts of every window of the data, or of one in `every`, beside the truth.

        A row a window and step ahead: id, `origin` (the last step that was looked back on), time, `step`,
        `<target>_true`, then the columns of `predict`. `start` is as in `evaluate`.
        """
        table, source = self._read(data)
        self._check_names(table)
        loader = self._truth_loader(table, start)
        maker, task = loader.maker, self.blueprint.task
        if not isinstance(task, Forecasting) or not isinstance(loader, Loader) or not isinstance(maker, Forecasts):
            raise ConfigError(
                "back-testing", expected="a model of forecasts", got=task.task, hint="model.evaluate(data)"
            )
        loader.most = -(-loader.items // every)
        parts = list(self._run(loader))
        window = maker.windows.at(np.concatenate([batch.rows.numpy() for batch, _ in parts]))
        rows = (window.origin[:, None] + np.arange(task.horizon)).ravel()
        keys: dict[str, Any] = {}
        if table.id_name or len(table.ids) > 1:
            keys[table.id_name or "sequence"] = pl.Series(table.ids).gather(np.repeat(window.sequence, task.horizon))
        times = _times(table) if table.time_name else pl.Series(np.arange(table.rows))
        keys["origin"] = times.gather(np.repeat(window.origin - 1, task.horizon))
        if table.time_name:
            keys[table.time_name] = times.gather(rows)
        keys["step"] = np.tile(np.arange(1, task.horizon + 1), len(window.origin))
        keys |= {f"{name}_true": table.read(name, 0, table.rows)[rows] for name in task.targets}
        decoded = _joined([task.decode(prediction) for _, prediction in parts])
        frame = _as_given(_beside(keys, {k: v.reshape(-1) for k, v in decoded.items()}), table, source)
        if source is None or not table.time_name:
            return frame
        return frame.with_columns(origin=restored(source, table.time_name, frame["origin"]))

    def evaluate(self, data: Any, *, start: Any = None) -> dict[str, float]:
        """Return the loss and the task's metrics on data with targets.

        For forecasts every window of the data is scored; `start` (a time) scores only horizons that begin there or
        later, and lets earlier rows serve as look-back.
        """
        return self.score(data, start=start)[0]

    def score(self, data: Any, *, start: Any = None) -> tuple[dict[str, float], Accumulator]:
        """Return the figures of `evaluate` and the accumulator they came from (a confusion matrix, say)."""
        table, _ = self._read(data)
        self._check_names(table)
        return evaluate(self.network, self._truth_loader(table, start), f"evaluating on {table.name}")

    def _sequences(self, table: Table, chosen: np.ndarray, *, targets: bool) -> Loader | Spans:
        """Return batches of the chosen sequences, of so many steps that memory does not grow with their length.

        A network that cannot carry its state on reads sequences whole.
        """
        longest = int(np.diff(table.offsets).max(initial=1))
        encoded, carries = Encoded(table, self.blueprint.features), isinstance(self.network, CarryingNetwork)
        rows = _BATCH if carries else max(1, min(_BATCH, _STEPS // max(longest, 1)))
        window = _STEPS // rows if carries else None
        return self.blueprint.loader(encoded, chosen, rows, targets=targets, window=window)

    def _truth_loader(self, table: Table, start: Any) -> Loader | Spans:
        task = self.blueprint.task
        targets = self.blueprint.plan.targets
        check_columns(table, targets, "targets")
        if not isinstance(task, Forecasting):
            if start is not None:
                raise ConfigError(f"evaluating {task.task}", expected="no start=: it is for forecasts", got=repr(start))
            scored = np.arange(len(table.ids)) if task.per_step else np.flatnonzero(labelled(table, targets))
            if len(scored) < len(table.ids):
                self.notes.append(f"{len(table.ids) - len(scored)} of {len(table.ids)} sequences have no target")
            return self._sequences(table, scored, targets=True)
        begin = np.zeros(len(table.ids), np.int64) if start is None else _steps_before(table, start)
        windows = window_origins(
            table.offsets, begin, steps_with_truth(table, task.targets), task.horizon, min(task.lookback, task.horizon)
        )
        if not len(windows):
            raise DataError(
                f"evaluating forecasts on {table.name}",
                expected=f"at least {2 * task.horizon} steps",
                got=f"a longest series of {int(np.diff(table.offsets).max())} steps",
                hint="more rows",
            )
        return self.blueprint.forecasts(Encoded(table, self.blueprint.features), windows, _BATCH)

    def _read(self, data: Any, without: tuple[str, ...] = ()) -> tuple[Table, Source | None]:
        if isinstance(data, Table):
            return data, None
        plan = self.blueprint.plan
        unused = (plan.ignored.keys() - {plan.id, plan.time}) | set(without)
        source = open_source(data, kinds=dict(plan.types), ignore=unused, must_have=False)
        return load_table(source, id=plan.id, time=plan.time), source

    def _check_names(self, table: Table) -> None:
        self.notes = list(table.notes) + self.blueprint.check(table)

    def _run(self, loader: Loader | Spans) -> Iterator[tuple[Batch, Tensor]]:
        return predictions(self.network, loader)

    def _per_sequence(self, table: Table, loader: Loader | Spans) -> pl.DataFrame:
        parts = [self.network.task.decode(prediction) for _, prediction in self._run(loader)]
        return _beside({table.id_name or "sequence": table.ids}, _joined(parts))

    def _per_step(self, table: Table, loader: Loader | Spans) -> pl.DataFrame:
        parts, places = [], [np.empty(0, np.int64)]
        first = width = 0
        for batch, prediction in self._run(loader):
            first, width = 0 if batch.begins else first + width, prediction.shape[1]
            real = torch.arange(width, device=prediction.device) < batch.lengths[:, None]
            steps = table.offsets[batch.rows.cpu().numpy()][:, None] + first + np.arange(width)
            places.append(steps[real.cpu().numpy()])
            parts.append(self.network.task.decode(prediction[real]))
        order = np.argsort(np.concatenate(places), kind="stable")
        lengths = np.diff(table.offsets)
        keys: dict[str, Any] = {
            table.id_name or "sequence": pl.Series(table.ids).gather(np.repeat(np.arange(len(lengths)), lengths))
        }
        if table.time_name:
            keys[table.time_name] = _times(table)
        else:
            keys["step"] = np.concatenate([np.arange(n) for n in lengths]) if len(lengths) else []
        return _beside(keys, {name: values[order] for name, values in _joined(parts).items()})

    def _forecast(self, table: Table) -> pl.DataFrame:
        task = self.blueprint.task
        assert isinstance(task, Forecasting)
        known = self.blueprint.known.names if self.blueprint.known else ()
        check_columns(table, task.targets, "targets")
        self._check_names(table)
        plan = self.blueprint.plan
        ahead = future(table, task.targets, task.lookback, task.horizon, plan.static, known)
        encoded = Encoded(ahead.table, self.blueprint.features)
        loader = self.blueprint.forecasts(encoded, ahead.windows(), _BATCH)
        decoded = _joined([task.decode(prediction) for _, prediction in self._run(loader)])
        rows = (ahead.origins[:, None] + np.arange(task.horizon)).ravel()
        keys: dict[str, Any] = {}
        if table.id_name or len(table.ids) > 1:
            keys[table.id_name or "sequence"] = pl.Series(table.ids).gather(
                np.repeat(range(len(table.ids)), task.horizon)
            )
        if table.time_name:
            keys[table.time_name] = _times(ahead.table).gather(rows)
        keys["step"] = np.tile(np.arange(1, task.horizon + 1), len(table.ids))
        return _beside(keys, {k: v.reshape(-1) for k, v in decoded.items()})


def _times(table: Table) -> pl.Series:
    """Return the time of every row."""
    name = table.time_name or ""
    values = pl.Series(table.read(name, 0, table.rows))
    return values.cast(TIMESTAMP) if table.columns[name].type == "timestamp" else values


def _as_given(frame: pl.DataFrame, table: Table, source: Source | None) -> pl.DataFrame:
    """Return ids and times as they were in the source."""
    keys = [name for name in (table.id_name, table.time_name) if name in frame.columns]
    return frame if source is None else frame.with_columns(restored(source, k, frame[k]) for k in keys)


def _beside(keys: dict[str, Any], predicted: dict[str, np.ndarray]) -> pl.DataFrame:
    """Join key columns and predictions; a key we named ourselves gives way to a target of that name."""
    return pl.DataFrame({(f"{k}_number" if k in predicted else k): v for k, v in keys.items()} | predicted)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _steps_before(table: Table, start: Any) -> np.ndarray:
    """Return for each sequence how many of its steps lie before the time `start`, [N]."""
    doing, name = f"evaluating {table.name} from start={start!r}", table.time_name
    if not name:
        raise DataError(doing, expected="a table with a time column", got="none", hint="train with time=")
    stamped = table.columns[name].type == "timestamp"
    try:
        if stamped and isinstance(start, int | float):
            raise TypeError(f"the number {start}")
        begin: float
        if stamped:
            begin = int(np.datetime64(start, "us").astype(np.int64))
        else:
            begin = float(start) if isinstance(start, str) else start + 0
    except (TypeError, ValueError) as error:
        raise DataError(
            doing,
            expected="a timestamp" if stamped else f"a number, as in column {name!r}",
            got=str(error),
            hint='start="2024-05-01"' if stamped else "start=100",
        ) from None

    def moment(row: int) -> Any:
        return table.read(name, row, row + 1)[0]

    bounds = zip(table.offsets[:-1].tolist(), table.offsets[1:].tolist(), strict=True)
    return np.array([bisect_left(range(b), begin, a, key=moment) - a for a, b in bounds], np.int64)
