"""Rows as they arrive from a file or frame, before their types are settled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Chunk:
    """Some rows in order. `first` is the index of the first; `lines` the line each begins at, in a text file."""

    frame: pl.DataFrame
    first: int
    lines: np.ndarray | None = None

    def place(self, at: int) -> str:
        """Say where the row at index `at` of this chunk stands, counted from 1."""
        row = f"row {self.first + at + 1}"
        return row if self.lines is None else f"{row} (line {int(self.lines[at])})"

    def nested_place(self, lists: pl.Series) -> Callable[[int], str]:
        """Return `place` for an index into the exploded values of `lists`."""
        sizes = lists.list.len() if isinstance(lists.dtype, pl.List) else lists.arr.len()
        ends = sizes.fill_null(0).cast(pl.Int64).cum_sum().to_numpy()
        return lambda at: self.place(int(np.searchsorted(ends, at, side="right")))


@dataclass(frozen=True)
class Raw:
    """An opened table: its columns as they are stored, and how to read them again from the start.

    `untyped` formats write everything as text. `lengths` [N] divides the rows into sequences where the data does so.
    """

    name: str
    columns: dict[str, pl.DataType]
    chunks: Callable[[Sequence[str]], Iterator[Chunk]]
    rows: int | None = None
    untyped: bool = False
    lengths: np.ndarray | None = None
