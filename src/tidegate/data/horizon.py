"""The future of a series: its last steps, and the rows to be forecast after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tidegate.data.calendar import next_times
from tidegate.data.features import is_missing
from tidegate.data.kinds.timestamp import MISSING
from tidegate.data.memory import memory_table
from tidegate.data.table import ColumnInfo, Table
from tidegate.data.windows import Windows
from tidegate.errors import DataError

_BLOCK_ROWS = 1 << 16
_CLOCK_ROWS = 64


@dataclass(frozen=True)
class Future:
    """The end of every series: `table` holds it with `horizon` rows to forecast, which begin at row `origins` [N]."""

    table: Table
    origins: np.ndarray

    def windows(self) -> Windows:
        """Return one window per series, at its origin."""
        return Windows(self.table.offsets, self.origins, np.ones_like(self.origins))


def steps_with_truth(table: Table, targets: Sequence[str]) -> np.ndarray:
    """Return for each series how many of its steps lie up to its last one with any target, [N]."""
    return np.array([_steps_with_truth(table, targets, i) for i in range(len(table.ids))], np.int64)


def _steps_with_truth(table: Table, targets: Sequence[str], sequence: int) -> int:
    start, stop = int(table.offsets[sequence]), int(table.offsets[sequence + 1])
    while stop > start:
        low = max(start, stop - _BLOCK_ROWS)
        seen = np.zeros(stop - low, dtype=bool)
        for name in targets:
            seen |= ~is_missing(table.columns[name], table.read(name, low, stop))
        if seen.any():
            return low + int(np.flatnonzero(seen)[-1]) + 1 - start
        stop = low
    return 0


def future(
    table: Table, targets: Sequence[str], lookback: int, horizon: int, static: Sequence[str], known: Sequence[str]
) -> Future:
    """Return the last `lookback` steps with truth of every series, and the `horizon` rows after them.

    Rows after the last known target are the future already. Rows that are not there are added: time goes on (see
    `next_times`), `static` columns keep their value, others are missing. `known` columns must have values there.

    Errors: `DataError` names the series without a past, or without the future of a known column.
    """
    ends = steps_with_truth(table, targets)
    if not ends.all():
        raise DataError(
            f"forecasting with {table.name}",
            expected="past values of the target to look back on",
            got=f"none in series {table.ids[int(ends.argmin())]!r}",
            hint="give rows up to now, target included",
        )
    origins = table.offsets[:-1] + ends
    # One row more than is looked back on: the gap before the first step is an input too.
    first = np.maximum(origins - lookback - 1, table.offsets[:-1])
    last = np.minimum(origins + horizon, table.offsets[1:])
    missing = origins + horizon - last
    for name in known:
        if name != table.time_name and name not in static:
            _check_known(table, name, origins, last, horizon)
    for name in static:
        _check_static(table, name, first, last)
    columns = {
        name: (info, _stretched(table, info, first, last, missing, name in static))
        for name, info in table.columns.items()
    }
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(last - first + missing)])
    ending = memory_table(
        table.name, table.ids, offsets, columns, id_name=table.id_name, time_name=table.time_name, notes=table.notes
    )
    return Future(ending, offsets[:-1] + origins - first)


def _check_known(table: Table, name: str, origins: np.ndarray, last: np.ndarray, horizon: int) -> None:
    info = table.columns[name]
    for series, origin, stop in zip(table.ids, origins, last, strict=True):
        given = int((~is_missing(info, table.read(name, int(origin), int(stop)))).sum())
        if given < horizon:
            raise DataError(
                f"forecasting {horizon} steps ahead with {table.name}",
                expected=f"{horizon} rows after the last target, with values of {name!r}, whose future is known",
                got=f"{given} in series {series!r}",
                hint="append the future rows and leave the target empty",
            )


def _check_static(table: Table, name: str, first: np.ndarray, last: np.ndarray) -> None:
    if table.columns[name].constant:
        return
    for series, start, stop in zip(table.ids, first, last, strict=True):
        values = table.read(name, int(start), int(stop))
        if len(np.unique(values[~is_missing(table.columns[name], values)], axis=0)) > 1:
            raise DataError(
                f"forecasting with {table.name}",
                expected=f"one value of {name!r} in every series, as in training",
                got=f"several in series {series!r}",
                hint="train again with data in which it changes",
            )


def _stretched(
    table: Table, info: ColumnInfo, first: np.ndarray, last: np.ndarray, missing: np.ndarray, static: bool
) -> np.ndarray:
    pieces = []
    for i, more in enumerate(missing.tolist()):
        values = table.read(info.name, int(first[i]), int(last[i]))
        pieces.append(values)
        if not more:
            continue
        if info.name == table.time_name:
            begin = max(int(table.offsets[i]), int(last[i]) - _CLOCK_ROWS)
            pieces.append(next_times(table.read(info.name, begin, int(last[i])), more, info.type))
        elif static:
            seen = np.flatnonzero(~is_missing(info, values))
            pieces.append(np.repeat(values[seen[-1:]] if seen.size else values[-1:], more, axis=0))
        else:
            nothing = {"category": -1, "text": -1, "timestamp": MISSING}.get(info.type, np.nan)
            pieces.append(np.full((more, *values.shape[1:]), nothing, values.dtype))
    return np.concatenate(pieces)
