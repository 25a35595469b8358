"""Forecasts: hold out the last part of each series, fit on what comes before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidegate.blueprint import Blueprint
from tidegate.config import Config
from tidegate.data.features import Encoded, Features, Segments, fit_features
from tidegate.data.horizon import steps_with_truth
from tidegate.data.schema import Schema, check_columns
from tidegate.data.split import cut_by_fraction
from tidegate.data.table import Table
from tidegate.data.windows import Windows, window_origins
from tidegate.errors import DataError
from tidegate.prepare.base import Prepared, architecture, remarks
from tidegate.prepare.objective import number_loss
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.targets import fit_scaler

_MOST_VALIDATED = 20_000
"""Windows that are scored after each epoch, evenly spread, where there are more."""


@dataclass(frozen=True)
class _Split:
    """Training rows of each series, and the windows of both parts."""

    segments: Segments
    train: Windows
    valid: Windows


def prepare_forecasts(table: Table, config: Config, plan: Schema, valid: Table | None) -> Prepared:
    """Prepare for forecasting; an epoch takes at most `config.windows_per_epoch` windows, others each time."""
    notes = remarks(table, plan, config)
    lengths = steps_with_truth(table, plan.targets)
    config = _with_reach(table, config, lengths, notes)
    split = _split(table, config, plan, lengths, valid)
    blueprint = _blueprint(table, config, plan, split.segments)
    held = encoded = Encoded(table, blueprint.features)
    if valid is not None:
        notes += blueprint.check(valid)
        held = Encoded(valid, blueprint.features)
    train = blueprint.forecasts(encoded, split.train, config.batch_size, config.seed, config.windows_per_epoch)
    check = blueprint.forecasts(held, split.valid, max(config.batch_size, 256), most=_MOST_VALIDATED)
    for loader, windows, what in ((train, split.train, "trains on"), (check, split.valid, "validates on")):
        if loader.items < len(windows):
            notes.append(f"an epoch {what} {loader.items:,} of {len(windows):,} windows")
    return Prepared(
        blueprint,
        config,
        train=train,
        valid=check,
        sizes={"train_windows": len(split.train), "valid_windows": len(split.valid)},
        notes=notes,
    )


def _with_reach(table: Table, config: Config, lengths: np.ndarray, notes: list[str]) -> Config:
    """Settle horizon and look-back: rows without a target at the end of every series are what is to be forecast."""
    asked_for = int((np.diff(table.offsets) - lengths).min())
    horizon = config.horizon or asked_for or max(1, min(24, int(lengths.max()) // 10))
    # Four horizons, as far as a third of the series allows; at least one horizon.
    third = int(np.median(lengths)) // 3
    lookback = config.lookback or max(min(4 * horizon, third), min(horizon, max(third, 1)))
    if config.horizon is None:
        why = "the rows at the end without a target" if asked_for else "from the lengths: say horizon= for another"
        notes.append(f"horizon {horizon}, {why}")
    return config.model_copy(update={"horizon": horizon, "lookback": lookback})


def _split(table: Table, config: Config, plan: Schema, lengths: np.ndarray, valid: Table | None) -> _Split:
    horizon, lookback = config.horizon or 1, config.lookback or 1
    cut = lengths if valid is not None else cut_by_fraction(lengths, config.valid, horizon)
    least = min(lookback, horizon)
    train = window_origins(table.offsets, np.zeros_like(cut), cut, horizon, least)
    if valid is not None:
        check_columns(valid, plan.targets, "targets")
        ends = steps_with_truth(valid, plan.targets)
        held = window_origins(valid.offsets, np.zeros_like(ends), ends, horizon, least)
    else:
        held = window_origins(table.offsets, cut, lengths, horizon, least)
    if not len(train) or not len(held):
        raise DataError(
            f"making forecasting windows of {table.name}",
            expected=f"at least {least + horizon} steps to train on and {horizon} more to validate on",
            got=f"a longest sequence of {int(lengths.max())} steps with a target",
            hint="a smaller horizon or lookback",
        )
    return _Split([(int(a), int(a + c)) for a, c in zip(table.offsets[:-1], cut, strict=True)], train, held)


def _blueprint(table: Table, config: Config, plan: Schema, segments: Segments) -> Blueprint:
    features = _features(table, [n for n in plan.inputs if n not in plan.targets], segments, plan.time)
    known = _features(table, [n for n in plan.known if n in plan.inputs], segments, None)
    scalers = [fit_scaler(table, name, segments) for name in plan.targets]
    task = Forecasting(
        targets=plan.targets,
        mean=tuple(s.mean[0] for s in scalers),
        std=tuple(s.std[0] for s in scalers),
        horizon=config.horizon or 1,
        lookback=config.lookback or 1,
        quantiles=config.quantiles,
        point=number_loss(config),
    )
    return Blueprint(
        plan=plan,
        features=features,
        known=known if known.names else None,
        task=task,
        architecture=architecture(config),
    )


def _features(table: Table, names: list[str], segments: Segments, clock: str | None) -> Features:
    if not names and not clock:
        return Features(dense=(), codes=())
    return fit_features(table, names, segments, clock=clock, may_be_empty=True)
