"""A table of sequences: rows grouped by sequence and ordered by time, in memory or on disk behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl

from tidegate.data.encode import Encoder
from tidegate.data.grouping import Grouped, Storage, group_in_memory
from tidegate.data.grouping import InMemory as InMemory
from tidegate.data.infer import WORD
from tidegate.data.source import Source
from tidegate.data.spool import group_on_disk

ColumnType = Literal["number", "boolean", "category", "timestamp", "text"]
MEMORY_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class ColumnInfo:
    """What a column holds.

    `missing` counts rows. `constant`: one value (or none) within every sequence, rows where it is missing aside.
    `patchy`: some sequence has it in some of its rows only. `words`: how text spelled false and true. `verbatim`: a
    category read as it stands, as `kinds` asked for.
    Columns of text with more than `tidegate.data.encode.MOST_LEVELS` different values are "text", not "category".
    """

    name: str
    type: ColumnType
    width: int
    levels: tuple[str, ...] | None
    missing: int
    constant: bool
    patchy: bool = False
    words: tuple[str, str] | None = None
    verbatim: bool = False

    @property
    def kind(self) -> str:
        """The type as `kinds` of `open_source` takes it, so that another table is read in the same way."""
        return WORD if self.type == "category" and not self.verbatim else self.type


@dataclass(frozen=True)
class Table:
    """Rows of sequence `i` are `offsets[i]` to `offsets[i + 1]`, by time; sequences in order of first appearance."""

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

        Numbers are float64 [n], or [n, w] for vectors, NaN where missing; booleans float64 0, 1 or NaN; categories
        int32 codes into `levels`, -1 where missing; timestamps int64 microseconds since 1970 (UTC), the least int64
        where missing. Of text nothing is kept but what is missing: -1, or 0. The table's time is int64 where it is
        whole numbers, so that large ones keep their digits.
        """
        return self.storage[name].read(start, stop)


def load_table(
    source: Source, *, id: str | None = None, time: str | None = None, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> Table:
    """Group the rows of `source` by `id` and order each sequence by `time`.

    A table with list columns is nested: every row is a sequence, numbered from 0 where no `id` is given, and single
    values hold for all of its steps; an id then occurs once. In a frame with fixed-size arrays as its only lists, these
    are vectors, one a step, where `time` is a single value or ids repeat. Text of ids is read as it stands, as whole
    numbers where each is spelled as one. Without `id` a long table is one sequence; without `time` rows keep their
    order. Rows out of order are sorted (stable) and `notes` says so. A table larger than `memory_limit_bytes` is kept
    in temporary files, which go with the table.

    Errors: `DataError` names the row of a missing id or time, both rows of a repeated id and time, and unknown columns.
    """
    source = source.with_roles(id, time)
    encoder = Encoder(source, id, time)
    small = _estimate_bytes(source) <= memory_limit_bytes
    grouped = group_in_memory(encoder) if small else group_on_disk(encoder)
    ids: list[str | int] = encoder.id_values() if id else list(range(grouped.counts.size))
    notes = grouped.notes + [r.note for r in source.readings.values() if r.note]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(grouped.counts, dtype=np.int64)])
    return Table(
        source.name,
        ids,
        id,
        time,
        offsets,
        {name: _info(name, encoder, grouped) for name in encoder.types},
        grouped.storage,
        small,
        [f"{source.name}: {note}" for note in notes],
    )


def _info(name: str, encoder: Encoder, grouped: Grouped) -> ColumnInfo:
    kind: ColumnType = encoder.types[name]  # type: ignore[assignment]
    reading = encoder.source.readings.get(name)
    return ColumnInfo(
        name,
        kind,
        max(1, encoder.widths[name]),
        tuple(str(value) for value in encoder.levels[name].index) if name in encoder.levels else None,
        grouped.missing[name],
        name not in grouped.changing,
        patchy=name in grouped.patchy,
        words=reading.words if reading else None,
        verbatim=reading is not None and reading.verbatim,
    )


def _estimate_bytes(source: Source) -> int:
    """Return about how much memory the encoded rows take, bookkeeping of 24 bytes a row included."""
    if source.nested:
        scalars = 8 * (len(source.columns) - len(source.nested)) + 24
        first = source.nested[0]
        return sum(
            int(frame.estimated_size()) + scalars * int(frame[first].list.len().sum() or 0)
            for frame in source.chunks(source.nested)
        )
    widths = sum(dtype.size if isinstance(dtype, pl.Array) else 1 for dtype in source.columns.values())
    return (source.rows or 0) * (8 * widths + 24)
