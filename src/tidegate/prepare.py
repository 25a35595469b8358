"""A table and a configuration become a blueprint and two loaders, without leakage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tidegate.blueprint import Blueprint
from tidegate.config import Config
from tidegate.data.features import Encoded, Features, Segments, fit_features
from tidegate.data.horizon import steps_with_truth
from tidegate.data.loader import Loader
from tidegate.data.schema import Schema, check_columns, infer_schema
from tidegate.data.split import cut_by_fraction, split_by_id
from tidegate.data.table import Table
from tidegate.data.windows import window_origins
from tidegate.errors import DataError
from tidegate.tasks.any import AnyTask
from tidegate.tasks.classification import Classification, MultiLabel, Tagging
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Architecture
from tidegate.tasks.regression import Regression
from tidegate.tasks.targets import find_classes, fit_scaler, sequence_classes, sequence_numbers


@dataclass(frozen=True)
class Prepared:
    """What the loop needs, and what was decided on the way (`notes`, in plain words)."""

    blueprint: Blueprint
    config: Config
    train: Loader
    valid: Loader
    sizes: dict[str, int]
    notes: list[str] = field(default_factory=list)


def prepare(table: Table, config: Config, valid: Table | None = None) -> Prepared:
    """Infer what is not set, split, fit kinds on the training part, and build the loaders."""
    plan = infer_schema(
        table,
        config.target,
        task=config.task,
        known=config.known,
        ignore=config.ignore,
        horizon=config.horizon,
    )
    config = config.model_copy(
        update={
            "task": plan.task,
            "id": plan.id,
            "time": plan.time,
            "bidirectional": plan.task == "tagging" if config.bidirectional is None else config.bidirectional,
        }
    )
    build = _prepare_forecasts if plan.task == "forecasting" else _prepare_sequences
    return build(table, config, plan, valid)


def _architecture(config: Config) -> Architecture:
    return Architecture(**{name: getattr(config, name) for name in Architecture.model_fields})


def _prepare_sequences(table: Table, config: Config, plan: Schema, valid: Table | None) -> Prepared:
    classes = None
    groups = None
    if plan.task in ("classification", "tagging"):
        classes = find_classes(table, plan.targets[0])
        if plan.task == "classification":
            groups = sequence_classes(table, plan.targets[0], classes).numpy()
    every = np.arange(len(table.ids))
    train_part, valid_part = (every, every) if valid else split_by_id(len(every), config.valid, config.seed, groups)
    segments = [(int(table.offsets[i]), int(table.offsets[i + 1])) for i in train_part]
    clock = plan.time
    features = fit_features(table, plan.inputs, segments, clock=clock)
    task = _sequence_task(table, plan, classes, train_part, config)
    blueprint = Blueprint(plan=plan, features=features, known=None, task=task, architecture=_architecture(config))
    encoded = Encoded(table, features)
    notes = list(table.notes)
    if valid:
        notes += blueprint.check(valid)
        held, valid_part = Encoded(valid, features), np.arange(len(valid.ids))
    else:
        held = encoded
    return Prepared(
        blueprint,
        config,
        train=blueprint.loader(encoded, train_part, config.batch_size, config.seed),
        valid=blueprint.loader(held, valid_part, config.batch_size),
        sizes={"train_sequences": len(train_part), "valid_sequences": len(valid_part)},
        notes=notes,
    )


def _sequence_task(table: Table, plan: Schema, classes: Any, train_part: np.ndarray, config: Config) -> AnyTask:
    if plan.task == "classification":
        return Classification(target=plan.targets[0], classes=classes)
    if plan.task == "tagging":
        return Tagging(target=plan.targets[0], classes=classes)
    if plan.task == "multilabel":
        values = sequence_numbers(table, plan.targets)
        if not np.isin(values, (0, 1)).all():
            raise DataError(
                f"reading labels of {table.name}",
                expected="0 and 1 (or false and true)",
                got=str(values[~np.isin(values, (0, 1))][0]),
                hint="task='regression'",
            )
        return MultiLabel(targets=plan.targets)
    values = sequence_numbers(table, plan.targets)[train_part]
    std = values.std(0)
    return Regression(
        targets=plan.targets,
        mean=tuple(values.mean(0).tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),
        point=config.loss,
    )


def _prepare_forecasts(table: Table, config: Config, plan: Schema, valid: Table | None) -> Prepared:
    lengths = steps_with_truth(table, plan.targets)
    horizon = config.horizon or max(1, min(24, int(lengths.max()) // 10))
    lookback = config.lookback or _default_lookback(int(np.median(lengths)), horizon)
    cut = lengths if valid else cut_by_fraction(lengths, config.valid, horizon)
    segments: Segments = [(int(a), int(a + c)) for a, c in zip(table.offsets[:-1], cut, strict=True)]
    least = min(lookback, max(1, horizon))
    train_windows = window_origins(table.offsets, np.zeros_like(cut), cut, horizon, least)
    if valid:
        check_columns(valid, plan.targets, "targets")
        ends = steps_with_truth(valid, plan.targets)
        valid_windows = window_origins(valid.offsets, np.zeros_like(ends), ends, horizon, least)
    else:
        valid_windows = window_origins(table.offsets, cut, lengths, horizon, least)
    if not len(train_windows) or not len(valid_windows):
        raise DataError(
            f"making forecasting windows of {table.name}",
            expected=f"at least {least + horizon} steps to train on and {horizon} more to validate on",
            got=f"a longest sequence of {int(lengths.max())} steps",
            hint="a smaller horizon or lookback",
        )
    known_names = [n for n in plan.known if n in plan.inputs]
    features = _features(table, [n for n in plan.inputs if n not in plan.targets], segments, plan.time)
    known = _features(table, known_names, segments, None)
    scalers = [fit_scaler(table, name, segments) for name in plan.targets]
    task = Forecasting(
        targets=plan.targets,
        mean=tuple(s.mean[0] for s in scalers),
        std=tuple(s.std[0] for s in scalers),
        horizon=horizon,
        lookback=lookback,
        quantiles=config.quantiles,
        point=config.loss,
    )
    config = config.model_copy(update={"horizon": horizon, "lookback": lookback})
    blueprint = Blueprint(
        plan=plan,
        features=features,
        known=known if known.names else None,
        task=task,
        architecture=_architecture(config),
    )
    notes = list(table.notes)
    encoded = Encoded(table, features)
    held = Encoded(valid, features) if valid else encoded
    if valid:
        notes += blueprint.check(valid)
    return Prepared(
        blueprint,
        config,
        train=blueprint.forecasts(encoded, train_windows, config.batch_size, config.seed),
        valid=blueprint.forecasts(held, valid_windows, max(config.batch_size, 256)),
        sizes={"train_windows": len(train_windows), "valid_windows": len(valid_windows)},
        notes=notes,
    )


def _features(table: Table, names: list[str], segments: Segments, clock: str | None) -> Features:
    if not names and not clock:
        return Features(dense=(), codes=())
    return fit_features(table, names, segments, clock=clock, may_be_empty=True)


def _default_lookback(length: int, horizon: int) -> int:
    """Four horizons, as far as a third of the series allows; at least one horizon."""
    return max(min(4 * horizon, length // 3), min(horizon, max(length // 3, 1)))
