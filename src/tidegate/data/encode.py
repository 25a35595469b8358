"""A source's rows as plain arrays: sequence numbers, clock and columns, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tidegate.data.infer import TIMESTAMP, type_of
from tidegate.data.source import Source
from tidegate.errors import DataError
from tidegate.registry import did_you_mean

MISSING_TIME = np.iinfo(np.int64).min
ID_TIMES = "%Y-%m-%dT%H:%M:%S%.6f"
"""How timestamps are written where they serve as ids."""

MOST_LEVELS = 1_000_000
"""A column of more different strings than this is text: its values are not kept."""

_MOST_STEPS = 1 << 19


@dataclass
class Piece:
    """Some steps in source order: sequence numbers, clock (None without a time column), source rows, columns."""

    sequence: np.ndarray
    clock: np.ndarray | None
    rows: np.ndarray
    columns: dict[str, np.ndarray]


class Levels:
    """Different values of a column, numbered in order of first appearance."""

    def __init__(self) -> None:
        self.index: dict[str | int | float, int] = {}

    def codes(self, values: pl.Series) -> np.ndarray:
        """Return int32 codes, -1 for null, after adding the values not seen before."""
        seen = values.drop_nulls().unique(maintain_order=True)
        if not len(seen):
            return np.full(len(values), -1, np.int32)
        index = self.index
        numbers = pl.Series([index.setdefault(value, len(index)) for value in seen.to_list()], dtype=pl.Int32)
        return values.replace_strict(seen, numbers, default=None, return_dtype=pl.Int32).fill_null(-1).to_numpy()


class Encoder:
    """Reads `source` as pieces; levels and ids grow as it reads and stay the same when it reads again."""

    def __init__(self, source: Source, id: str | None, time: str | None) -> None:
        for role, column in (("id", id), ("time", time)):
            if column is not None and column not in source.columns:
                raise DataError(
                    f"reading {role}= for {source.name}",
                    expected="a column of the table",
                    got=repr(column),
                    hint=did_you_mean(column, source.columns),
                )
        if id is not None and id in source.nested:
            raise DataError(
                f"reading id= for {source.name}",
                expected="one value a row",
                got=f"lists in column {id!r}",
                hint="name a column of single values, or leave id= out",
            )
        if id is not None and id == time:
            raise DataError(
                f"reading {source.name}", expected="different columns for id= and time=", got=f"{id!r} for both"
            )
        if time is not None and type_of(source.columns[time]) not in ("number", "timestamp"):
            raise DataError(
                f"reading time= for {source.name}",
                expected="numbers, dates or timestamps",
                got=f"{type_of(source.columns[time])} in column {time!r}: {_first_value(source, time)!r} in row 1",
                hint="write times as ISO 8601, 2024-05-01 13:00, or as numbers",
            )
        self.source, self.id, self.time = source, id, time
        self.types = {name: type_of(dtype) for name, dtype in source.columns.items()}
        self.widths = dict.fromkeys(source.columns, 0)
        self.levels = {name: Levels() for name, kind in self.types.items() if kind == "category"}
        self.ids = Levels()

    def pieces(self, columns: Sequence[str] | None = None) -> Iterator[Piece]:
        """Yield `columns` (all by default) with sequence numbers and clock, about half a million steps at a time."""
        wanted = list(self.source.columns if columns is None else columns)
        needed = list(dict.fromkeys([*wanted, *(n for n in (self.id, self.time) if n), *(self.source.nested or ())]))
        row = 0
        lengths = self.source.lengths
        number = None if lengths is None else np.repeat(np.arange(lengths.size), lengths)
        for frame in self.source.chunks(needed or list(self.source.columns)[:1]):
            for flat, rows in self._flat(frame, row):
                sequence = self._sequence(flat, rows, number)
                clock = self._clock(flat[self.time], rows) if self.time else None
                yield Piece(sequence, clock, rows, {n: self._array(flat[n], n, rows) for n in wanted})
            row += frame.height

    def _flat(self, frame: pl.DataFrame, row: int) -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        nested = self.source.nested
        if not nested:
            yield frame, np.arange(row, row + frame.height)
            return
        sizes = self._sizes(frame, row)
        total, start = np.cumsum(sizes), 0
        while start < frame.height:
            done = total[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(total, done + _MOST_STEPS, side="right")))
            yield (
                frame[start:stop].explode(list(nested)),
                np.repeat(np.arange(row + start, row + stop), sizes[start:stop]),
            )
            start = stop

    def _sizes(self, frame: pl.DataFrame, row: int) -> np.ndarray:
        """Return the number of steps in each row, or raise where lists disagree or are empty."""
        doing, first = f"reading {self.source.name}", self.source.nested[0]
        counts = {n: frame[n].list.len().fill_null(0).to_numpy().astype(np.int64) for n in self.source.nested}
        for name, sizes in counts.items():
            other = sizes != counts[first]
            if other.any():
                at = int(other.argmax())
                raise DataError(
                    doing,
                    expected="lists of one length in a row",
                    got=f"{counts[first][at]} values in {first!r} and {sizes[at]} in {name!r} in row {row + at + 1}",
                    hint="pad with null where a value is missing",
                )
        if (counts[first] == 0).any():
            at = int((counts[first] == 0).argmax())
            raise DataError(
                doing,
                expected="at least one step in every row",
                got=f"an empty list in {first!r} in row {row + at + 1}",
                hint="leave sequences without steps out",
            )
        return counts[first]

    def id_values(self) -> list[str | int]:
        """Return the ids found, in order of first appearance; floats as whole numbers if all are, as text if not."""
        found = list(self.ids.index)
        if self.id is None or not (dtype := self.source.columns[self.id]).is_float():
            return found  # type: ignore[return-value]
        values = pl.Series(found, dtype=dtype)
        whole = bool(((values % 1 == 0) & (values.abs() < 2.0**63)).all())
        return values.cast(pl.Int64 if whole else pl.String).to_list()

    def _sequence(self, flat: pl.DataFrame, rows: np.ndarray, number: np.ndarray | None) -> np.ndarray:
        if number is not None:
            return np.asarray(number[rows])
        if self.id is None:
            return rows if self.source.nested else np.zeros(rows.size, np.int64)
        values = flat[self.id]
        if values.dtype.is_float():
            values = values.fill_nan(None)
        elif not values.dtype.is_integer():
            values = values.dt.to_string(ID_TIMES) if values.dtype == TIMESTAMP else values.cast(pl.String)
        codes = self.ids.codes(values)
        if (codes < 0).any():
            at = int(rows[int((codes < 0).argmax())])
            raise DataError(
                f"reading ids of {self.source.name}",
                expected="an id in every row",
                got=f"a missing value in column {self.id!r}, row {at + 1}",
                hint="fill it in or drop the row",
            )
        if self.source.nested and (codes != rows).any():
            # Ids are numbered as they appear: as long as all differ, the number of an id is that of its row.
            at = int((codes != rows).argmax())
            raise DataError(
                f"reading ids of {self.source.name}",
                expected="each id once, in a table whose rows hold whole sequences",
                got=f"two rows of {self.id} {values[at]!r}: rows {int(codes[at]) + 1} and {int(rows[at]) + 1}",
                hint="join their lists, or leave id= out to number the rows",
            )
        return codes.astype(np.int64)

    def _clock(self, values: pl.Series, rows: np.ndarray) -> np.ndarray:
        if values.dtype.is_float():
            values = values.fill_nan(None)
        if values.null_count():
            at = int(rows[int(values.is_null().arg_max() or 0)])
            raise DataError(
                f"reading times of {self.source.name}",
                expected="a time in every row",
                got=f"a missing value in column {self.time!r}, row {at + 1}",
                hint="fill it in or drop the row",
            )
        if values.dtype == TIMESTAMP or values.dtype.is_integer():
            whole = values.cast(pl.Int64, strict=False)
            if whole.null_count():
                at = int(whole.is_null().arg_max() or 0)
                raise DataError(
                    f"reading times of {self.source.name}",
                    expected="whole numbers below 2^63",
                    got=f"{values[at]} in column {self.time!r}, row {int(rows[at]) + 1}",
                    hint="count from a later start, or in a larger unit",
                )
            return whole.to_numpy()
        return values.cast(pl.Float64).to_numpy()

    def _array(self, values: pl.Series, name: str, rows: np.ndarray) -> np.ndarray:
        kind = self.types[name]
        if name == self.time:
            return self._clock(values, rows)
        if isinstance(values.dtype, pl.List | pl.Array):
            return self._vectors(values, name, rows)
        if kind == "category":
            codes = self.levels[name].codes(values.cast(pl.String))
            if len(self.levels[name].index) > MOST_LEVELS:
                self.types[name] = "text"
                del self.levels[name]
            return codes
        if kind == "text":
            return np.where(values.is_null().to_numpy(), np.int32(-1), np.int32(0))
        if kind == "timestamp":
            return values.cast(pl.Int64).fill_null(MISSING_TIME).to_numpy()
        return values.cast(pl.Float64).fill_null(np.nan).to_numpy()

    def _vectors(self, values: pl.Series, name: str, rows: np.ndarray) -> np.ndarray:
        doing = f"reading column {name!r} of {self.source.name}"
        lists = values.arr.to_list() if isinstance(values.dtype, pl.Array) else values
        if lists.dtype.inner.is_nested() or self.types[name] not in ("number", "boolean"):  # type: ignore[attr-defined]
            raise DataError(
                doing,
                expected="numbers, or vectors of numbers, in every step",
                got=f"dtype {values.dtype}",
                hint="flatten the values of a step into one vector",
            )
        sizes = lists.list.len()
        width = self.widths[name] or int(sizes.drop_nulls().first() or 0)  # type: ignore[arg-type]
        wrong = (sizes != width).fill_null(False)
        if wrong.any() or not width:
            at = int(wrong.arg_max() or 0)
            raise DataError(
                doing,
                expected=f"vectors of {width or 'at least one'} numbers in every step",
                got=f"{sizes[at]} in row {int(rows[at]) + 1}",
                hint="give every step the same features",
            )
        self.widths[name] = width
        matrix = np.full((len(values), width), np.nan)
        inner = lists.drop_nulls().explode(empty_as_null=False).cast(pl.Float64).fill_null(np.nan)
        matrix[lists.is_not_null().to_numpy()] = inner.to_numpy().reshape(-1, width)
        return matrix[:, 0] if width == 1 else matrix


def _first_value(source: Source, column: str) -> object:
    return next(source.chunks([column]))[column][0]
