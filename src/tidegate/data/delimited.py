"""CSV and TSV, plain or gzip: streamed, checked byte by byte, handed on as columns of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tidegate.data.bytestream import outside_quotes, read_blocks
from tidegate.data.raw import Chunk, Raw
from tidegate.errors import DataError

MOST_FIELD_BYTES = 1 << 20
_SPOKEN = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def read_delimited(path: Path, name: str) -> Raw:
    """Read the header of a delimited file; return its columns, all text, and a way to stream the rows.

    The delimiter (comma, tab, semicolon or bar) is the one the header has most of. Blank lines are passed over, except
    in a file of one column, where they are missing values. Quotes follow RFC 4180: a quoted field may hold delimiters
    and line ends, which are \\n or \\r\\n. Errors: `DataError` naming line and column.
    """
    head = _head(path, name)
    delimiter = max(_SPOKEN, key=lambda d: len(_fields(head[0], d))) if head else ","
    columns = _fields(head[0], delimiter) if head else []
    _check_header(columns, _fields(head[1], delimiter) if len(head) > 1 else None, name)

    def chunks(wanted: Sequence[str]) -> Iterator[Chunk]:
        row, headed = 0, False
        for line, data in read_blocks(path, name, quotes=True):
            _check_line_ends(data, line, name)
            text, lines = _check(data, line, delimiter, columns, name)
            if not headed:
                text, lines = _without_header(text, lines)
                headed = True
            if lines.size:
                yield Chunk(_parse(text, lines, delimiter, columns, name).select(wanted), row, lines)
                row += lines.size

    return Raw(name, {column: pl.String() for column in columns}, chunks, untyped=True)


def _head(path: Path, name: str) -> list[bytes]:
    """Return the first two records that are not blank."""
    found: list[bytes] = []
    for line, data in read_blocks(path, name, quotes=True):
        _check_line_ends(data, line, name)
        start = 0
        while len(found) < 2 and start < len(data):
            end = data.index(b"\n", start)
            while data.count(b'"', start, end) % 2:
                end = data.index(b"\n", end + 1)
            if record := data[start:end].strip(b"\r"):
                found.append(record)
            start = end + 1
        if len(found) == 2:
            break
    return found


def _fields(record: bytes, delimiter: str) -> list[str]:
    array = np.frombuffer(record, np.uint8)
    marks = outside_quotes(np.flatnonzero(array == ord(delimiter)), np.flatnonzero(array == ord('"')))
    stops = [*marks.tolist(), len(record)]
    fields = [record[a:b].decode("utf-8").strip() for a, b in zip([0, *(m + 1 for m in stops)], stops, strict=False)]
    return [f[1:-1].replace('""', '"').strip() if f[:1] == f[-1:] == '"' and len(f) > 1 else f for f in fields]


def _check_line_ends(data: bytes, line: int, name: str) -> None:
    if b"\r" not in data:
        return
    array = np.frombuffer(data, np.uint8)
    returns = np.flatnonzero(array == ord("\r"))
    alone = returns[~np.isin(array[returns + 1], (ord("\r"), ord("\n")))]
    bare = outside_quotes(alone, np.flatnonzero(array == ord('"')))
    if bare.size:
        line += data.count(b"\n", 0, int(bare[0]))
        raise DataError(
            f"reading {name}",
            expected="lines that end with \\n or \\r\\n",
            got=f"a carriage return (\\r) alone on line {line}",
            hint="convert the line ends: tr '\\r' '\\n'",
        )


def _stray_quote(data: bytes, delimiter: str) -> int | None:
    """Return the place of the first quote that neither begins nor ends a field, nor is doubled."""
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == ord('"'))
    before = np.concatenate([[ord("\n")], array])[quotes]
    after = np.concatenate([array, [ord("\n")]])[quotes + 1]
    beside = np.where(np.arange(quotes.size) % 2 == 0, before, after)
    stray = quotes[~np.isin(beside, [ord(c) for c in f'{delimiter}\r\n" '])]
    return int(stray[0]) if stray.size else None


def _misplaced(place: str, name: str) -> DataError:
    return DataError(
        f"reading {name}",
        expected="quotes around whole fields only",
        got=f"misplaced quotes, {place}",
        hint='quote the whole field, and write a quote inside it as ""',
    )


def _check_header(columns: list[str], below: list[str] | None, name: str) -> None:
    doing = f"reading the header of {name} (line 1)"
    for i, column in enumerate(columns, 1):
        if not column:
            raise DataError(
                doing,
                expected="a name for every column",
                got=f"an empty name for column {i}",
                hint="name the column (an index may have been written without a name)",
            )
        if column in columns[: i - 1]:
            raise DataError(
                doing,
                expected="every column named once",
                got=f"{column!r} as column {columns.index(column) + 1} and as column {i}",
                hint="rename one",
            )
    numbers = [_number(column) for column in columns]
    counted = numbers == [*range(len(numbers))]
    if columns and None not in numbers and not counted:
        whole = all(n is not None and n.is_integer() for n in (*numbers, *map(_number, below or [])))
        if whole or not all(n is not None and n.is_integer() for n in numbers):
            raise DataError(
                doing,
                expected="names of columns",
                got=f"only numbers: {', '.join(columns[:5])}",
                hint="add a header line that names the columns",
            )
    if below is None:
        raise DataError(
            f"reading {name}",
            expected="a header and at least one row",
            got="a header only (0 rows)" if columns else "an empty file",
        )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check(data: bytes, line: int, delimiter: str, columns: list[str], name: str) -> tuple[bytes, np.ndarray]:
    """Return the text without blank lines and the line each row begins at, or raise for rows that do not fit."""
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == ord('"'))
    ends_of_line = np.flatnonzero(array == ord("\n"))
    ends = outside_quotes(ends_of_line, quotes)
    marks = outside_quotes(np.flatnonzero(array == ord(delimiter)), quotes)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    lines = line + (np.searchsorted(ends_of_line, starts) if quotes.size else np.arange(starts.size))
    sizes = ends - starts
    if sizes.max() > MOST_FIELD_BYTES:
        _check_fields(np.sort(np.concatenate([marks, ends])), starts, lines, columns, name)
    blank = (sizes == 0) | ((sizes == 1) & (array[starts] == ord("\r")))
    counts = np.searchsorted(marks, ends) - np.searchsorted(marks, starts) + 1
    wrong = (counts != len(columns)) & ~blank
    if wrong.any():
        at = int(wrong.argmax())
        raise _ragged(data[starts[at] : ends[at]], int(lines[at]), delimiter, columns, name)
    if not blank.any():
        return data, lines
    if len(columns) == 1:
        return np.insert(array, np.repeat(starts[blank], 2), ord('"')).tobytes(), lines
    return array[np.repeat(~blank, sizes + 1)].tobytes(), lines[~blank]


def _check_fields(stops: np.ndarray, starts: np.ndarray, lines: np.ndarray, columns: list[str], name: str) -> None:
    sizes = np.diff(stops, prepend=-1) - 1
    if sizes.max() <= MOST_FIELD_BYTES:
        return
    at = int(sizes.argmax())
    row = int(np.searchsorted(starts, stops[at], side="right")) - 1
    column = at - int(np.searchsorted(stops, starts[row]))
    shown = repr(columns[column]) if column < len(columns) else str(column + 1)
    raise DataError(
        f"reading {name}",
        expected=f"fields of at most {MOST_FIELD_BYTES} bytes",
        got=f"a huge field of {int(sizes[at])} bytes on line {int(lines[row])}, column {shown}",
        hint="check for a quote that never closes",
    )


def _ragged(record: bytes, line: int, delimiter: str, columns: list[str], name: str) -> DataError:
    if (stray := _stray_quote(record, delimiter)) is not None:
        begin, end = record.rfind(b"\n", 0, stray) + 1, record.find(b"\n", stray)
        shown = record[begin : end if end > 0 else len(record)].decode("utf-8")[:60]
        line += record.count(b"\n", 0, stray)
        return _misplaced(f"line {line}: {shown!r}", name)
    fields = _fields(record, delimiter)
    for other, spoken in _SPOKEN.items():
        alike = len(_fields(record, other))
        if other != delimiter and alike > len(fields) and alike >= max(2, len(columns)):
            return DataError(
                f"reading {name}",
                expected=f"{len(columns)} fields between {_SPOKEN[delimiter]}s, as in the header",
                got=f"line {line}, which looks delimited by {spoken}s",
                hint="write header and rows alike",
            )
    short = len(fields) < len(columns)
    where = f"nothing for column {columns[len(fields)]!r}" if short else f"more after column {columns[-1]!r}"
    return DataError(
        f"reading {name}",
        expected=f"{len(columns)} fields, as in the header",
        got=f"{len(fields)} on line {line} ({where})",
        hint="quote a field that holds a delimiter, or mend the row",
    )


def _without_header(text: bytes, lines: np.ndarray) -> tuple[bytes, np.ndarray]:
    end = text.index(b"\n")
    while text.count(b'"', 0, end) % 2:
        end = text.index(b"\n", end + 1)
    if text[:end].strip(b'\r"') == b"":
        # A blank line above the header of a one-column file was made a missing value.
        return _without_header(text[end + 1 :], lines[1:])
    return text[end + 1 :], lines[1:]


def _parse(text: bytes, lines: np.ndarray, delimiter: str, columns: list[str], name: str) -> pl.DataFrame:
    try:
        frame = pl.read_csv(
            text, has_header=False, separator=delimiter, schema=dict.fromkeys(columns, pl.String()), encoding="utf8"
        )
    except pl.exceptions.PolarsError as error:
        raise _misplaced(_where(text, lines, delimiter), name) from error
    if frame.height != lines.size:
        raise _misplaced(_where(text, lines, delimiter), name)
    return frame


def _where(text: bytes, lines: np.ndarray, delimiter: str) -> str:
    stray = _stray_quote(text, delimiter)
    if stray is None:
        return f"between line {int(lines[0])} and line {int(lines[-1])}"
    array = np.frombuffer(text, np.uint8)
    ends = outside_quotes(np.flatnonzero(array == ord("\n")), np.flatnonzero(array == ord('"')))
    return f"in the row that begins on line {int(lines[np.searchsorted(ends, stray)])}"
