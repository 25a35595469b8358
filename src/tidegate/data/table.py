"""A table of sequences: rows grouped by sequence and ordered by time, in memory or on disk behind one interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from tidegate.data.encode import MISSING_TIME, Encoder
from tidegate.data.source import Source
from tidegate.errors import DataError

ColumnType = Literal["number", "boolean", "category", "timestamp"]
MEMORY_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class ColumnInfo:
    """What a column holds. `constant`: one value (or none) within every sequence; `missing` counts rows."""

    name: str
    type: ColumnType
    width: int
    levels: tuple[str, ...] | None
    missing: int
    constant: bool


class Storage(Protocol):
    """Where the rows of one column lie."""

    def read(self, start: int, stop: int) -> np.ndarray: ...


@dataclass(frozen=True)
class InMemory:
    """A column as one array, which readers must not write to."""

    values: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]


@dataclass(frozen=True)
class Table:
    """Rows of sequence `i` are `offsets[i]` to `offsets[i + 1]`, in order of time; sequences in order of first appearance."""

    name: str
    ids: list[str | int]
    id_name: str | None
    time_name: str | None
    offsets: np.ndarray
    columns: dict[str, ColumnInfo]
    storage: Mapping[str, Storage]
    in_memory: bool
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return int(self.offsets[-1])

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop) of a column.

        Numbers are float64 [n], or [n, w] for vectors, NaN where missing; booleans float64 0, 1 or NaN; categories int32
        codes into `levels`, -1 where missing; timestamps int64 microseconds since 1970 (UTC), the least int64 where missing.
        """
        return self.storage[name].read(start, stop)


def load_table(
    source: Source, *, id: str | None = None, time: str | None = None, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> Table:
    """Group the rows of `source` by `id` and order each sequence by `time`.

    A table with list columns is nested: every row is a sequence, numbered from 0 where no `id` is given, and single values
    hold for all of its steps. Without `id` a long table is one sequence; without `time` rows keep their order. Rows out of
    order are sorted (stable) and `notes` says so. A table larger than `memory_limit_bytes` is kept in temporary files,
    which go with the table.

    Errors: `DataError` names the row of a missing id or time, both rows of a repeated id and time, and unknown columns.
    """
    encoder = Encoder(source, id, time)
    return _load_in_memory(encoder)


def _load_in_memory(encoder: Encoder) -> Table:
    pieces = list(encoder.pieces())
    sequence = np.concatenate([p.sequence for p in pieces])
    clock = None if encoder.time is None else np.concatenate([p.clock for p in pieces if p.clock is not None])
    rows = np.concatenate([p.rows for p in pieces])
    notes, order = sort_order(sequence, clock)
    if order is not None:
        sequence, rows, clock = sequence[order], rows[order], None if clock is None else clock[order]
    if clock is not None:
        check_repeats(sequence, clock, rows, encoder)
    columns, storage = {}, {}
    same = sequence[1:] == sequence[:-1]
    for name in encoder.source.columns:
        values = np.concatenate([p.columns.pop(name) for p in pieces])
        if order is not None:
            values = values[order]
        values.flags.writeable = False
        storage[name] = InMemory(values)
        columns[name] = describe(encoder, name, count_missing(values, encoder.types[name]), not changes(values)[same].any())
    counts = np.bincount(sequence, minlength=int(sequence[-1]) + 1)
    return finish(encoder, counts, columns, storage, True, notes)


def sort_order(sequence: np.ndarray, clock: np.ndarray | None) -> tuple[list[str], np.ndarray | None]:
    """Return notes on what is out of order, and the order that mends it (None if all is well)."""
    notes = []
    if (sequence[1:] < sequence[:-1]).any():
        notes.append(APART)
    grouped = np.argsort(sequence, kind="stable") if notes else None
    if clock is not None:
        placed, owner = (clock, sequence) if grouped is None else (clock[grouped], sequence[grouped])
        if ((placed[1:] < placed[:-1]) & (owner[1:] == owner[:-1])).any():
            notes.append(UNSORTED)
            return notes, np.lexsort((clock, sequence))
    return notes, grouped


APART = "rows of a sequence stood apart: brought together"
UNSORTED = "rows were not in order of time: sorted by time"


def check_repeats(sequence: np.ndarray, clock: np.ndarray, rows: np.ndarray, encoder: Encoder) -> None:
    """Raise `DataError` if two neighbouring rows of the sorted table have one sequence and one time."""
    same = (sequence[1:] == sequence[:-1]) & (clock[1:] == clock[:-1])
    if not same.any():
        return
    at = int(same.argmax())
    first, second = sorted((int(rows[at]) + 1, int(rows[at + 1]) + 1))
    owner = list(encoder.ids.index)[int(sequence[at])] if encoder.id else int(sequence[at])
    where = f"rows {first} and {second}" if first != second else f"two steps of row {first}"
    value = np.datetime64(int(clock[at]), "us") if encoder.types[encoder.time or ""] == "timestamp" else clock[at]
    raise DataError(f"ordering {encoder.source.name} by {encoder.time!r}", expected="each time once in a sequence",
                    got=f"duplicate time {value} in {where}" + (f", both of {encoder.id} {owner!r}" if encoder.id else ""),
                    hint="drop one of them, or name the id column that tells the sequences apart" if not encoder.id
                    else "drop one of them")


def changes(values: np.ndarray) -> np.ndarray:
    """Return [n − 1] booleans: true where a value differs from the one before; missing equals missing."""
    before, after = values[:-1], values[1:]
    differ = before != after
    if values.dtype.kind == "f":
        differ &= ~(np.isnan(before) & np.isnan(after))
    return differ if differ.ndim == 1 else differ.any(axis=1)


def count_missing(values: np.ndarray, kind: str) -> int:
    """Count rows without a value (for vectors: without any part of it)."""
    if kind == "category":
        return int((values < 0).sum())
    if kind == "timestamp":
        return int((values == MISSING_TIME).sum())
    gone = np.isnan(values)
    return int((gone if gone.ndim == 1 else gone.any(axis=1)).sum())


def describe(encoder: Encoder, name: str, missing: int, constant: bool) -> ColumnInfo:
    """Return what is known of a column once every row has been read."""
    levels = tuple(str(v) for v in encoder.levels[name].index) if name in encoder.levels else None
    kind: ColumnType = encoder.types[name]  # type: ignore[assignment]
    return ColumnInfo(name, kind, max(1, encoder.widths[name]), levels, missing, bool(constant))


def finish(
    encoder: Encoder, counts: np.ndarray, columns: dict[str, ColumnInfo], storage: Mapping[str, Storage],
    in_memory: bool, notes: Iterable[str],
) -> Table:
    """Put the parts of a table together."""
    ids: list[str | int] = list(encoder.ids.index) if encoder.id else list(range(len(counts)))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return Table(encoder.source.name, ids, encoder.id, encoder.time, offsets, columns, storage, in_memory,
                 [f"{encoder.source.name}: {note}" for note in notes])
