"""The future of a series: rows beyond its end, for forecasts that reach past the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tidegate.data.features import is_missing
from tidegate.data.kinds.timestamp import MISSING
from tidegate.data.memory import memory_table
from tidegate.data.table import ColumnInfo, Table
from tidegate.data.windows import Windows
from tidegate.errors import DataError

_DAY = 86_400_000_000


def with_future(table: Table, targets: Sequence[str], horizon: int, known: Sequence[str]) -> tuple[Table, np.ndarray]:
    """Return a table with at least `horizon` rows after each series' last known target, and those origins [N].

    Rows at the end of a series that have no target are its future already. Rows that are missing are added: time goes
    on at the series' own step, columns that are constant within every sequence keep their value, others are missing.
    A `known` column that must have a value there and has none is an error.
    """
    ends = np.array([_end_of_truth(table, targets, i) for i in range(len(table.ids))])
    given = table.offsets[1:] - table.offsets[:-1] - ends
    extra = np.maximum(horizon - given, 0)
    for name in known:
        info = table.columns[name]
        if extra.any() and not info.constant and name != table.time_name:
            series = table.ids[int(np.flatnonzero(extra)[0])]
            raise DataError(
                f"forecasting {horizon} steps ahead with {table.name}",
                expected=f"{horizon} rows after the last target, with values of {name!r}, whose future is known",
                got=f"{int(given.min())} in series {series!r}",
                hint="append the future rows and leave the target empty",
            )
    offsets = np.concatenate([[0], np.cumsum(np.diff(table.offsets) + extra)])
    columns = {name: (info, _extended(table, info, extra)) for name, info in table.columns.items()}
    longer = memory_table(
        table.name,
        table.ids,
        offsets,
        columns,
        id_name=table.id_name,
        time_name=table.time_name,
        notes=table.notes,
    )
    return longer, offsets[:-1] + ends


def forecast_origins(table: Table, origins: np.ndarray) -> Windows:
    """Return one window per series, at its origin."""
    return Windows(table.offsets, origins, np.ones_like(origins))


def _end_of_truth(table: Table, targets: Sequence[str], sequence: int) -> int:
    """Return how many steps of a series lie up to its last one with any target."""
    start, stop = int(table.offsets[sequence]), int(table.offsets[sequence + 1])
    seen = np.zeros(stop - start, dtype=bool)
    for name in targets:
        seen |= ~is_missing(table.columns[name], table.read(name, start, stop))
    if not seen.any():
        raise DataError(
            f"forecasting with {table.name}",
            expected="past values of the target to look back on",
            got=f"none in series {table.ids[sequence]!r}",
            hint="give rows up to now, target included",
        )
    return int(np.flatnonzero(seen)[-1]) + 1


def _extended(table: Table, info: ColumnInfo, extra: np.ndarray) -> np.ndarray:
    pieces = []
    for i, more in enumerate(extra):
        start, stop = int(table.offsets[i]), int(table.offsets[i + 1])
        values = table.read(info.name, start, stop)
        if info.name == table.time_name:
            tail = _going_on(values, int(more), info.type)
        elif info.constant:
            tail = np.repeat(values[-1:], more, axis=0)
        else:
            missing = {"category": -1, "text": -1, "timestamp": MISSING}.get(info.type, np.nan)
            tail = np.full((int(more), *values.shape[1:]), missing, values.dtype)
        pieces += [values, tail]
    return np.concatenate(pieces)


def _going_on(times: np.ndarray, more: int, kind: str) -> np.ndarray:
    """Return the next `more` times at the series' median step; whole months where it ticks by months."""
    if len(times) < 2:
        step = _DAY if kind == "timestamp" else 1
        return (times[-1] + step * np.arange(1, more + 1)).astype(times.dtype)
    gaps = np.diff(times)
    step = np.median(gaps[gaps > 0]) if (gaps > 0).any() else 1
    if kind == "timestamp" and 28 * _DAY <= step <= 31 * _DAY:
        moments = times.astype("datetime64[us]")
        months = moments.astype("datetime64[M]")
        within = moments - months.astype("datetime64[us]")
        if (within == within[-1]).all():
            ahead = months[-1] + np.arange(1, more + 1)
            return np.asarray((ahead.astype("datetime64[us]") + within[-1]).astype(np.int64))
    return np.asarray((times[-1] + step * np.arange(1, more + 1)).astype(times.dtype))
