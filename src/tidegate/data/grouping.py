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
    """Columns in order; `counts` [N] rows a sequence, `missing` rows a column.

    Columns in `changing` have several values within some sequence, those in `patchy` have one in some of its rows only.
    """

    counts: np.ndarray
    storage: Mapping[str, Storage]
    missing: dict[str, int]
    changing: set[str]
    patchy: set[str]
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
    storage, missing, changing, patchy = {}, {}, set(), set()
    for name, kind in encoder.types.items():
        values = np.concatenate([p.columns.pop(name) for p in pieces])
        if order is not None:
            values = values[order]
        values.flags.writeable = False
        gone = missing_rows(values, kind)
        storage[name], missing[name] = InMemory(values), int(gone.sum())
        seen = seen_rows(values, gone)
        if changes(values[seen], sequence[seen]):
            changing.add(name)
        if (gone[1:] != gone[:-1])[same].any():
            patchy.add(name)
    return Grouped(np.bincount(sequence), storage, missing, changing, patchy, notes)


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
    owner = encoder.id_values()[int(sequence[at])] if encoder.id else int(sequence[at])
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


def changes(values: np.ndarray, sequence: np.ndarray) -> bool:
    """Say whether neighbouring `values` [n] differ within a sequence; a missing part of a vector equals another."""
    differ = values[1:] != values[:-1]
    if values.ndim > 1:
        differ = (differ & ~(np.isnan(values[1:]) & np.isnan(values[:-1]))).any(axis=1)
    return bool((differ & (sequence[1:] == sequence[:-1])).any())


def seen_rows(values: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Return booleans [n], true where rows are to be compared: those not `gone`, and all of vectors."""
    return ~gone if values.ndim == 1 else np.ones_like(gone)


def missing_rows(values: np.ndarray, kind: str) -> np.ndarray:
    """Return booleans [n], true where a row has no value (of a vector: lacks any part of it)."""
    if kind in ("category", "text"):
        return np.asarray(values < 0)
    if kind == "timestamp":
        return np.asarray(values == MISSING_TIME)
    gone = np.isnan(values)
    return np.asarray(gone if gone.ndim == 1 else gone.any(axis=1))
