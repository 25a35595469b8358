"""Input columns as the two matrices a network reads: dense numbers and category codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from tidegate.data.grouping import missing_rows
from tidegate.data.kinds import Boolean, Category, DenseKind, Number, Timestamp
from tidegate.data.kinds.elapsed import Elapsed, time_gaps
from tidegate.data.table import ColumnInfo, Table
from tidegate.errors import ConfigError, DataError
from tidegate.registry import did_you_mean

Segments = Sequence[tuple[int, int]]
"""Row ranges [start, stop) of a table, for instance those of the training part."""

_PIECE_ROWS = 1 << 20

_DENSE: dict[str, type[Number | Boolean | Timestamp]] = {
    "number": Number,
    "boolean": Boolean,
    "timestamp": Timestamp,
}


class Features(BaseModel):
    """Fitted kinds of the input columns: `dense` (with elapsed time last) in one matrix, `codes` in another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dense: tuple[DenseKind, ...]
    codes: tuple[Category, ...]
    elapsed: Elapsed | None = None

    @property
    def width(self) -> int:
        return sum(kind.width for kind in self.dense) + (self.elapsed.width if self.elapsed else 0)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        return tuple(kind.cardinality for kind in self.codes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(kind.name for kind in (*self.dense, *self.codes))

    def encode(self, table: Table, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows [start, stop) as dense float32 [n, F] and codes int64 [n, K]."""
        rows = stop - start
        dense = [kind.encode(table.read(kind.name, start, stop)) for kind in self.dense]
        codes = [
            kind.encode(table.read(kind.name, start, stop), table.columns[kind.name].levels or ())
            for kind in self.codes
        ]
        if self.elapsed:
            dense.append(self.elapsed.encode(_gaps(table, self.elapsed.name, start, stop)))
        return (
            np.concatenate(dense, axis=1) if dense else np.zeros((rows, 0), np.float32),
            np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int64),
        )

    def check(self, table: Table) -> list[str]:
        """Raise `DataError` unless `table` has every column with its type; return notes on what training never saw."""
        if self.elapsed:
            _check_column(table, self.elapsed.name, self.elapsed.clock)
        notes = []
        for kind in (*self.dense, *self.codes):
            info = _check_column(table, kind.name, kind.kind)
            if isinstance(kind, Number) and info.width != len(kind.mean):
                raise DataError(
                    f"reading {table.name}",
                    expected=f"column {kind.name!r} with {len(kind.mean)} values a step",
                    got=str(info.width),
                    hint="give the same features in the same order",
                )
            if isinstance(kind, Number) and info.missing and not kind.masked:
                notes.append(f"column {kind.name!r}: missing values, none in training: read as the mean")
            if isinstance(kind, Category) and (new := kind.unseen(info.levels or ())):
                notes.append(
                    f"column {kind.name!r}: {len(new)} categories not seen in training, "
                    f"read as unknown (first: {new[0]!r})"
                )
        return notes


def _check_column(table: Table, name: str, kind: str) -> ColumnInfo:
    info = table.columns.get(name)
    if info is None:
        raise DataError(
            f"reading {table.name}",
            expected=f"column {name!r}, which the model was trained on",
            got=f"columns {sorted(table.columns)}",
            hint=did_you_mean(name, table.columns),
        )
    # An all-missing column has no type of its own.
    if info.type != kind and info.missing < table.rows:
        raise DataError(
            f"reading {table.name}",
            expected=f"column {name!r} as {kind}, as in training",
            got=info.type,
            hint="convert the column, or train on data like this",
        )
    return info


def fit_features(
    table: Table,
    columns: Sequence[str],
    segments: Segments,
    *,
    clock: str | None = None,
    may_be_empty: bool = False,
) -> Features:
    """Fit the kind of each column on the row ranges of the training part alone.

    `clock` names the time column whose gaps become a feature, if they are uneven. Without a usable column it is a
    `ConfigError`, unless the features may be empty (a forecast from the series alone).
    """
    dense: list[Number | Boolean | Timestamp] = []
    codes: list[Category] = []
    for name in columns:
        info = table.columns[name]
        if info.type == "category":
            codes.append(Category.fit(name, info.levels or (), chunks(table, name, segments)))
            continue
        kind = _DENSE[info.type].fit(name, info.width, chunks(table, name, segments))
        if kind.width:
            dense.append(kind)
    elapsed = _fit_elapsed(table, clock, segments) if clock else None
    features = Features(
        dense=tuple(dense), codes=tuple(codes), elapsed=elapsed if elapsed and elapsed.irregular else None
    )
    if not features.names and not features.elapsed and not may_be_empty:
        raise ConfigError(
            f"choosing input columns of {table.name}",
            expected="at least one usable column",
            got=f"columns {sorted(table.columns)}",
            hint="leave fewer columns out",
        )
    return features


def _fit_elapsed(table: Table, clock: str, segments: Segments) -> Elapsed:
    kind: Literal["number", "timestamp"] = "timestamp" if table.columns[clock].type == "timestamp" else "number"
    return Elapsed.fit(clock, kind, (_gaps(table, clock, a, b) for a, b in _pieces(segments)))


def chunks(table: Table, name: str, segments: Segments) -> Iterator[np.ndarray]:
    """Yield the values of a column in the row ranges, in pieces of bounded size."""
    return (table.read(name, start, stop) for start, stop in _pieces(segments))


def _pieces(segments: Segments) -> Iterator[tuple[int, int]]:
    for start, stop in merged(segments):
        for at in range(start, stop, _PIECE_ROWS):
            yield at, min(at + _PIECE_ROWS, stop)


def _gaps(table: Table, clock: str, start: int, stop: int) -> np.ndarray:
    """Return the time since the step before, [stop − start]; 0 at the first step of a sequence."""
    if start == stop:
        return np.zeros(0)
    values = table.read(clock, max(start - 1, 0), stop)
    if start == 0:
        values = np.concatenate([values[:1], values])
    first = np.zeros(stop - start, dtype=bool)
    low, high = np.searchsorted(table.offsets, [start, stop])
    first[table.offsets[low:high] - start] = True
    return time_gaps(values, first)


def merged(segments: Segments) -> Iterator[tuple[int, int]]:
    """Join row ranges that touch, so that many short sequences are read in few pieces."""
    pending: tuple[int, int] | None = None
    for start, stop in sorted(segments):
        if pending and start <= pending[1]:
            pending = (pending[0], max(stop, pending[1]))
            continue
        if pending:
            yield pending
        pending = (start, stop)
    if pending:
        yield pending


def is_missing(info: ColumnInfo, values: np.ndarray) -> np.ndarray:
    """Return booleans [n], true where a value (or any part of a vector) is missing."""
    return missing_rows(values, info.type)


class Encoded:
    """A table's rows as matrices: encoded once when the table is in memory, piece by piece when it is not."""

    def __init__(self, table: Table, features: Features) -> None:
        self.table, self.features = table, features
        self._whole = features.encode(table, 0, int(table.offsets[-1])) if table.in_memory else None

    def gather(self, index: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return dense [B, T, F] and codes [B, T, K] of the rows `index` [B, T]; zeros where `mask` is false.

        Along T an index must ascend by one where `mask` is true: each row of the batch is one stretch of the table.
        """
        if self._whole is None:
            return self._read(index, mask)
        safe = np.where(mask, index, 0)
        dense, codes = self._whole[0][safe], self._whole[1][safe]
        if not mask.all():
            dense[~mask] = 0
            codes[~mask] = 0
        return dense, codes

    def _read(self, index: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = mask.shape
        dense = np.zeros((*shape, self.features.width), np.float32)
        codes = np.zeros((*shape, len(self.features.codes)), np.int64)
        for b in range(shape[0]):
            real = np.flatnonzero(mask[b])
            if real.size:
                first, last = real[0], real[-1]
                row = int(index[b, first])
                piece = self.features.encode(self.table, row, row + int(last - first) + 1)
                dense[b, first : last + 1], codes[b, first : last + 1] = piece
        return dense, codes
