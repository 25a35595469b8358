"""Where tables come from: files, frames and arrays, all read as typed columns in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tidegate.data.arrays import read_arrays
from tidegate.data.delimited import read_delimited
from tidegate.data.infer import TIMESTAMP, Place, Reading, Tally, check_kinds, leaf, type_of
from tidegate.data.jsonlines import read_json_lines
from tidegate.data.raw import Chunk, Raw
from tidegate.errors import DataError
from tidegate.registry import did_you_mean

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz",
            ".arrow", ".feather")  # fmt: skip
_CHUNK_ROWS = 1 << 18


@dataclass(frozen=True)
class Source:
    """A table that can be read again and again, chunk by chunk, in row order.

    `columns` maps each column to its dtype after inference: whole numbers, floats, booleans, strings, and
    microsecond UTC timestamps without zone, or lists of these when a row holds a sequence. `rows` is their number where
    it is known without reading. `lengths` is set for arrays only: the rows of each sequence. In a frame with `vectors`
    a fixed-size array is the value of a step; in others it is a sequence.
    """

    name: str
    columns: dict[str, pl.DataType]
    rows: int | None
    raw: Raw
    readings: dict[str, Reading]
    vectors: bool = False

    @property
    def nested(self) -> tuple[str, ...]:
        """The columns that hold a sequence in every row."""
        return (
            ()
            if self.raw.lengths is not None or self.vectors
            else tuple(name for name, dtype in self.columns.items() if isinstance(dtype, pl.List | pl.Array))
        )

    @property
    def lengths(self) -> np.ndarray | None:
        return self.raw.lengths

    def with_roles(self, id: str | None, time: str | None) -> Source:
        """Return the same rows for a table of sequences that `id` tells apart and `time` orders.

        Ids are read so that different text stays different: as whole numbers where each is spelled as one, as text
        where not; "NA" is an id. Fixed-size arrays beside single times, or beside ids that repeat, are vectors.
        """
        source = replace(self, columns=dict(self.columns), readings=dict(self.readings))
        if id in self.raw.columns and id not in self.nested:
            if id in self.readings:
                source.readings[id] = self.readings[id].of_ids()
            elif isinstance(self.raw.columns[id], pl.Decimal):
                source.readings[id] = Reading(pl.String(), verbatim=True)
        if self._holds_vectors(id, time):
            source = replace(source, vectors=True)
        source._settle_columns()
        return source

    def _holds_vectors(self, id: str | None, time: str | None) -> bool:
        if not self.nested or not all(isinstance(self.raw.columns[name], pl.Array) for name in self.nested):
            return False
        if time in self.columns:
            return time not in self.nested
        if id not in self.columns or id in self.nested:
            return False
        ids = pl.concat([frame[id] for frame in self.chunks([id])])
        return ids.n_unique() < len(ids)

    def _settle_columns(self) -> None:
        empty = pl.DataFrame(schema=self.raw.columns)
        self.columns.update(
            empty.select([self._typed(column, dtype) for column, dtype in self.raw.columns.items()]).schema
        )

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Yield the rows of `columns` (all by default) as typed frames, in order."""
        names = list(self.columns) if columns is None else list(columns)
        for name in names:
            if name in self.readings and (problem := self.readings[name].problem):
                raise problem
        for chunk in self.raw.chunks(names):
            frame = chunk.frame.select([self._typed(name, chunk.frame.schema[name]) for name in names])
            for name in names:
                self._check_finite(chunk, frame[name])
            yield frame

    def _typed(self, name: str, dtype: pl.DataType) -> pl.Expr:
        column = pl.col(name)
        if isinstance(dtype, pl.Array) and self.raw.lengths is None and not self.vectors:
            column, dtype = column.arr.to_list(), pl.List(dtype.inner)
        if isinstance(dtype, pl.List):
            return (
                column.list.eval(self._scalar(pl.element(), leaf(dtype), name))
                if not dtype.inner.is_nested()
                else column
            )
        return column if isinstance(dtype, pl.Array) else self._scalar(column, dtype, name).alias(name)

    def _scalar(self, column: pl.Expr, dtype: pl.DataType, name: str) -> pl.Expr:
        if name in self.readings:
            return self.readings[name].apply(column if dtype == pl.String else column.cast(pl.String))
        if isinstance(dtype, pl.Datetime):
            plain = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
            return plain.cast(TIMESTAMP)
        if dtype in (pl.Duration, pl.Time):
            return column.cast(pl.Duration("us")).dt.total_microseconds() / 1e6
        return column.cast(_plain(dtype))

    def _check_finite(self, chunk: Chunk, values: pl.Series) -> None:
        inner, depth = values, 0
        while isinstance(inner.dtype, pl.List | pl.Array):
            inner, depth = inner.explode(empty_as_null=False), depth + 1
        if not inner.dtype.is_float() or not (bad := inner.is_infinite().fill_null(False)).any():
            return
        at = int(bad.arg_max() or 0)
        value = inner[at]
        if depth:
            whole = [
                bool(np.isinf(np.array(row.to_list() if row is not None else [], dtype=float)).any()) for row in values
            ]
            at = whole.index(True)
        raise DataError(
            f"reading column {values.name!r} of {self.name}",
            expected="finite numbers",
            got=f"a non-finite value, {value}, in {chunk.place(at)}",
            hint="write it as missing (null or NaN)",
        )


def open_source(
    data: Any,
    *,
    name: str | None = None,
    kinds: dict[str, str] | None = None,
    ignore: Collection[str] = (),
    must_have: bool = True,
) -> Source:
    """Open a file, frame, or array as a `Source`, and find the type of every column.

    `data` is a path (.csv .tsv .parquet .jsonl .ndjson .arrow .feather; text formats also with .gz), a polars frame or
    any frame with the Arrow interface (pandas, pyarrow, duckdb …), a mapping of columns, an array [N, T, D] or [N, T],
    or a list of arrays [T_i, D]. Columns of text are read whole, in bounded memory, to find numbers, booleans and
    timestamps (zones become UTC) in them; `kinds` names the type of a column instead: "number", "boolean", "category"
    (whose only missing value is the empty one: "NA" is a label) or "timestamp". Digits stay text where they are padded
    with zeros ("007"), and in strings of a source that has number columns of its own. A column in which nine values of
    ten are numbers (or timestamps) and the rest are not is an error when it is read, unless as ids. Columns named in
    `ignore` are not looked at. Without `must_have`, kinds and ignored columns that the table lacks are passed over.

    Errors: `DataError` names the file, the row or line, the column and the value.
    """
    asked = check_kinds(kinds)
    raw = _open(data, name)
    if must_have:
        _check_named(raw, asked, "kinds")
        _check_named(raw, ignore, "ignore")
    raw = replace(raw, columns={column: dtype for column, dtype in raw.columns.items() if column not in ignore})
    asked = {column: kind for column, kind in asked.items() if column in raw.columns}
    if not raw.columns:
        raise DataError(f"reading {raw.name}", expected="at least one column", got="none")
    readings, rows = _infer(raw, asked)
    source = Source(raw.name, {}, raw.rows if raw.rows is not None else rows, raw, readings)
    if source.rows == 0:
        raise DataError(f"reading {raw.name}", expected="at least one row", got="none (0 rows)", hint="check the file")
    source._settle_columns()
    return source


def _check_named(raw: Raw, names: Collection[str], option: str) -> None:
    for name in names:
        if name not in raw.columns:
            raise DataError(
                f"reading {option}= for {raw.name}",
                expected="a column of the table",
                got=repr(name),
                hint=did_you_mean(name, raw.columns),
            )


def _infer(raw: Raw, asked: dict[str, str]) -> tuple[dict[str, Reading], int | None]:
    """Look at every value of the text columns, and of those whose type is asked for."""
    tallies = {}
    for column, dtype in raw.columns.items():
        inner = leaf(dtype)
        if isinstance(inner, pl.Binary | pl.Struct | pl.Object):
            raise DataError(
                f"reading column {column!r} of {raw.name}",
                expected="numbers, booleans, text or timestamps",
                got=f"dtype {dtype}",
                hint="drop the column, or unpack it into columns of plain values",
            )
        if _is_text(inner) or (column in asked and _kind(inner) != asked[column]):
            # Types a frame already has are left alone: "007" in a column of strings is a name, not a number.
            tallies[column] = Tally(
                column, raw.name, numeric_text=raw.untyped or column in asked, kind=asked.get(column)
            )
    if not tallies:
        return {}, None
    rows = 0
    for chunk in raw.chunks(list(tallies)):
        rows += chunk.frame.height
        for column, tally in tallies.items():
            values = chunk.frame[column]
            place: Place = chunk.place
            if isinstance(values.dtype, pl.List | pl.Array):
                place = chunk.nested_place(values)
                values = values.explode(empty_as_null=False)
            tally.add(values.cast(pl.String), place)
    return {column: tally.decide() for column, tally in tallies.items()}, rows


def _is_text(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.String | pl.Categorical | pl.Enum)


def _kind(dtype: pl.DataType) -> str:
    return "number" if dtype in (pl.Duration, pl.Time) else type_of(dtype)


def _plain(dtype: pl.DataType) -> pl.DataType:
    if isinstance(dtype, pl.Date):
        return TIMESTAMP
    if dtype == pl.Null or isinstance(dtype, pl.Decimal):
        return pl.Float64()
    return dtype


def _open(data: Any, name: str | None) -> Raw:
    if isinstance(data, str | os.PathLike):
        return _open_file(Path(data), name)
    if isinstance(data, pl.LazyFrame):
        data = data.collect()
    if isinstance(data, pl.DataFrame):
        return _from_frame(data, name or "DataFrame")
    if isinstance(data, Mapping):
        return _from_frame(_convert(lambda: pl.DataFrame(data), data), name or "DataFrame")
    if hasattr(data, "__arrow_c_stream__"):
        return _from_frame(_convert(lambda: _from_arrow(data), data), name or "DataFrame")
    if isinstance(data, list | tuple) or hasattr(data, "__array__"):
        return read_arrays(data, name or "array")
    raise DataError(
        "opening a table",
        expected="a path, a frame, an array [N, T, D] or a list of arrays [T, D]",
        got="None" if data is None else f"{type(data).__module__}.{type(data).__qualname__}",
        hint="a path such as 'measurements.csv', or the frame that was read from it",
    )


def _from_arrow(data: Any) -> pl.DataFrame:
    try:
        return pl.DataFrame(data)
    except ImportError:
        # pandas offers the Arrow interface only where pyarrow is installed.
        return pl.DataFrame({str(name): data[name].to_list() for name in data.columns}, strict=True, nan_to_null=True)


def _convert(build: Callable[[], pl.DataFrame], data: Any) -> pl.DataFrame:
    try:
        return build()
    except (pl.exceptions.PolarsError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"reading a {type(data).__name__}",
            expected="columns of one type and equal length, named once each",
            got=str(error).splitlines()[0],
            hint="convert mixed columns to numbers or to text",
        ) from error


def _from_frame(frame: pl.DataFrame, name: str) -> Raw:
    def chunks(columns: Sequence[str]) -> Iterator[Chunk]:
        for start in range(0, frame.height, _CHUNK_ROWS):
            yield Chunk(frame.select(columns).slice(start, _CHUNK_ROWS), start)

    return Raw(name, dict(frame.schema), chunks, rows=frame.height)


def _open_file(path: Path, name: str | None) -> Raw:
    doing, shown = f"opening {path}", name or path.name
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(s)), None)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, beside) if beside else f"the folder {path.parent} is missing or empty"
        raise DataError(doing, expected="a file", got="nothing of that name", hint=hint)
    if path.is_dir():
        raise DataError(doing, expected="a file", got="a folder", hint="name one file in it")
    if suffix is None:
        raise DataError(
            doing,
            expected=f"one of {', '.join(SUFFIXES)}",
            got=f"extension {''.join(path.suffixes) or 'none'!r}",
            hint='convert the table; a text is for task="generate" or "translate"',
        )
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise DataError(
            doing, expected="a file that can be read", got=error.strerror or str(error), hint="check its permissions"
        ) from error
    if empty:
        raise DataError(doing, expected="at least a header and one row", got="an empty file (0 bytes)")
    plain = suffix.removesuffix(".gz")
    if plain in (".csv", ".tsv"):
        return read_delimited(path, shown)
    if plain in (".jsonl", ".ndjson"):
        return read_json_lines(path, shown)
    return _scan(path, shown, "parquet" if plain == ".parquet" else "Arrow IPC")


def _scan(path: Path, name: str, noun: str) -> Raw:
    """Read Parquet or Arrow row group by row group."""

    def failed(error: Exception) -> DataError:
        return DataError(
            f"reading {name}",
            expected=f"a whole {noun} file",
            got=str(error).splitlines()[0],
            hint="the file may be cut short or of another format; write it again",
        )

    scan: Callable[..., pl.LazyFrame] = pl.scan_parquet if noun == "parquet" else pl.scan_ipc
    try:
        lazy = scan(path, glob=False)
        schema = dict(lazy.collect_schema())
        rows = int(lazy.select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError) as error:
        raise failed(error) from error

    def chunks(columns: Sequence[str]) -> Iterator[Chunk]:
        start = 0
        try:
            for frame in (
                scan(path, glob=False)
                .select(columns)
                .collect_batches(chunk_size=_CHUNK_ROWS, maintain_order=True, lazy=True, engine="streaming")
            ):
                yield Chunk(frame, start)
                start += frame.height
        except (pl.exceptions.PolarsError, OSError) as error:
            raise failed(error) from error

    return Raw(name, schema, chunks, rows=rows)
