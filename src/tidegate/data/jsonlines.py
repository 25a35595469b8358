"""JSON lines, plain or gzip: one object a line, the type of every key checked over the whole file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tidegate.data.bytestream import read_blocks
from tidegate.data.raw import Chunk, Raw
from tidegate.errors import DataError

_ROWS = 1 << 14
_DTYPES: dict[str, pl.DataType] = {
    "boolean": pl.Boolean(), "whole number": pl.Int64(), "number": pl.Float64(), "text": pl.String(), "null": pl.Null(),
}  # fmt: skip


def read_json_lines(path: Path, name: str) -> Raw:
    """Read the whole file once for its keys and their types; return them and a way to stream the rows.

    Values are numbers, booleans, text, null, and lists of these (or lists of lists: a vector a step). A key that is
    absent is missing. Errors: `DataError` naming the line and key where JSON is broken or a type changes.
    """
    types: dict[str, tuple[str, int]] = {}
    rows = 0
    for lines, objects in _objects(path, name):
        rows += len(objects)
        for line, item in zip(lines, objects, strict=True):
            for key, value in item.items():
                types[key] = _widen(types.get(key), value, key, line, name)
    schema = {key: _dtype(kind, depth) for key, (kind, depth) in types.items()}

    def chunks(columns: Sequence[str]) -> Iterator[Chunk]:
        row = 0
        for lines, objects in _objects(path, name):
            frame = pl.DataFrame(
                {c: pl.Series(c, [o.get(c) for o in objects], dtype=schema[c], strict=False) for c in columns}
            )
            yield Chunk(frame, row, pl.Series(lines).to_numpy())
            row += len(objects)

    return Raw(name, schema, chunks, rows=rows)


def _objects(path: Path, name: str) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    lines: list[int] = []
    objects: list[dict[str, Any]] = []
    for first, data in read_blocks(path, name, quotes=False):
        for line, text in enumerate(data.split(b"\n"), first):
            if not text.strip():
                continue
            lines.append(line)
            objects.append(_parse(text, line, name))
            if len(objects) == _ROWS:
                yield lines, objects
                lines, objects = [], []
    if objects:
        yield lines, objects


def _parse(text: bytes, line: int, name: str) -> dict[str, Any]:
    try:
        item = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"reading {name}",
            expected="one JSON object a line",
            got=f"bad JSON on line {line}: {error}",
            hint="mend the line; a row must not run over several lines",
        ) from error
    if not isinstance(item, dict):
        raise DataError(
            f"reading {name}",
            expected="one JSON object a line",
            got=f"a {type(item).__name__} on line {line}",
            hint='write rows as {"column": value, …}',
        )
    if b"\\u" in text:
        _check_surrogates(item, line, name)
    return item


def _check_surrogates(item: dict[str, Any], line: int, name: str) -> None:
    try:
        json.dumps(item, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"reading {name}",
            expected="Unicode text",
            got=f"half a surrogate pair, \\u{ord(error.object[error.start]):04x}, on line {line}",
            hint="write both halves, or the character itself",
        ) from error


def _widen(known: tuple[str, int] | None, value: Any, key: str, line: int, name: str) -> tuple[str, int]:
    """Return the (type, depth of lists) that holds `value` and everything seen before it."""
    found = _kind(value, key, line, name)
    if known is None or (known[0] == "null" and known[1] <= found[1]):
        return found
    if found == known or (found[0] == "null" and found[1] <= known[1]):
        return known
    if found[1] == known[1] and {found[0], known[0]} == {"whole number", "number"}:
        return "number", known[1]
    raise DataError(
        f"reading column {key!r} of {name}",
        expected=f"{_spoken(known)}, as on the lines above",
        got=f"inconsistent types: {_spoken(found)} on line {line}: {json.dumps(value)[:60]}",
        hint="write one type throughout, null where a value is missing",
    )


def _kind(value: Any, key: str, line: int, name: str) -> tuple[str, int]:
    if isinstance(value, list):
        inner: tuple[str, int] | None = None
        for item in value:
            inner = _widen(inner, item, key, line, name)
        kind, depth = inner or ("null", 0)
        return kind, depth + 1
    if isinstance(value, bool):
        return "boolean", 0
    if isinstance(value, int):
        return ("whole number", 0) if -(2**63) <= value < 2**63 else ("number", 0)
    if isinstance(value, float):
        return "number", 0
    if value is None:
        return "null", 0
    if isinstance(value, str):
        return "text", 0
    raise DataError(
        f"reading column {key!r} of {name}",
        expected="numbers, booleans, text, null, or lists of them",
        got=f"an object on line {line}",
        hint="give its parts columns of their own",
    )


def _spoken(kind: tuple[str, int]) -> str:
    return "a list of " * kind[1] + kind[0]


def _dtype(kind: str, depth: int) -> pl.DataType:
    dtype = _DTYPES[kind]
    for _ in range(depth):
        dtype = pl.List(dtype)
    return dtype
