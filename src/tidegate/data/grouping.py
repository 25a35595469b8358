"""Rows put in order: sequence by sequence in order of first appearance, each by time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tidegate.data.encode import MISSING_TIME, Encoder
from tidegate.errors import DataError

APART = "rows of a sequence stood apart: brought together"
UNSORTED = "rows were not in order of time: sorted by time"


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
class Grouped:
    """Columns in order; `counts` [N] rows a sequence, `missing` rows a column, columns `changing` within a sequence."""

    counts: np.ndarray
    storage: Mapping[str, Storage]
    missing: dict[str, int]
    changing: set[str]
    notes: list[str]


def group_in_memory(encoder: Encoder) -> Grouped:
    """Read everything and sort it as a whole."""
    pieces = list(encoder.pieces())
    sequence = np.concatenate([p.sequence for p in pieces])
    rows = np.concatenate([p.rows for p in pieces])
    clock = np.concatenate([p.clock for p in pieces if p.clock is not None]) if encoder.time else None
    notes, order = sort_order(sequence, clock)
    if order is not None:
        sequence, rows, clock = sequence[order], rows[order], None if clock is None else clock[order]
    if clock is not None:
        check_repeats(sequence, clock, rows, encoder)
    same = sequence[1:] == sequence[:-1]
    storage, missing, changing = {}, {}, set()
    for name, kind in encoder.types.items():
        values = np.concatenate([p.columns.pop(name) for p in pieces])
        if order is not None:
            values = values[order]
        values.flags.writeable = False
        storage[name], missing[name] = InMemory(values), count_missing(values, kind)
        if changes(values)[same].any():
            changing.add(name)
    return Grouped(np.bincount(sequence), storage, missing, changing, notes)


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
    raise DataError(
        f"ordering {encoder.source.name} by {encoder.time!r}",
        expected="each time once in a sequence",
        got=f"duplicate time {value} in {where}" + (f", both of {encoder.id} {owner!r}" if encoder.id else ""),
        hint="drop one of them, or name the id column that tells the sequences apart"
        if not encoder.id
        else "drop one of them",
    )


def changes(values: np.ndarray) -> np.ndarray:
    """Return [n − 1] booleans: true where a value differs from the one before; missing equals missing."""
    before, after = values[:-1], values[1:]
    differ = before != after
    if values.dtype.kind == "f":
        differ &= ~(np.isnan(before) & np.isnan(after))
    return np.asarray(differ if differ.ndim == 1 else differ.any(axis=1))


def count_missing(values: np.ndarray, kind: str) -> int:
    """Count rows without a value (for vectors: without any part of it)."""
    if kind in ("category", "text"):
        return int((values < 0).sum())
    if kind == "timestamp":
        return int((values == MISSING_TIME).sum())
    gone = np.isnan(values)
    return int((gone if gone.ndim == 1 else gone.any(axis=1)).sum())
