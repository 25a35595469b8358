"""Every malformed source ends in one clear error that names the file and the place."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import ConfigError, DataError

ROWS = "".join(f"{i % 3},{i},{i / 2}\n" for i in range(40))
GOOD = "id,t,x\n" + ROWS
ZIPPED = gzip.compress((GOOD * 50).encode())


def parquet_bytes(tmp: Path) -> bytes:
    pl.DataFrame({"x": np.arange(1000.0)}).write_parquet(tmp / "whole.parquet")
    return (tmp / "whole.parquet").read_bytes()


FILES: dict[str, tuple[str, bytes | str, list[str]]] = {
    "empty file": ("a.csv", "", ["a.csv", "empty"]),
    "blank file": ("a.csv", "\n\n", ["a.csv", "empty"]),
    "header only": ("a.csv", "id,x\n", ["a.csv", "header only"]),
    "duplicated header": ("a.csv", "x,y,x\n1,2,3\n", ["a.csv", "line 1", "'x'", "column 1", "column 3"]),
    "empty header name": ("a.csv", ",x\n1,2\n", ["a.csv", "line 1", "empty name for column 1"]),
    "missing header": ("a.csv", "1.5,2.5\n3.5,4.5\n", ["a.csv", "line 1", "only numbers", "header line"]),
    "missing whole-number header": ("a.csv", "7,3\n4,5\n", ["a.csv", "line 1", "only numbers"]),
    "short row": ("a.csv", "a,b,c\n1,2,3\n1,2\n", ["a.csv", "3 fields", "2 on line 3", "'c'"]),
    "long row": ("a.csv", "a,b\n1,2\n1,2,3\n", ["a.csv", "2 fields", "3 on line 3"]),
    "long row after a quoted line end": ("a.csv", 'a,b\n"1\n1",2\n1,2,3\n', ["a.csv", "3 on line 4"]),
    "other delimiter below": ("a.csv", "a,b,c\n1;2;3\n", ["a.csv", "line 2", "semicolon", "comma"]),
    "other delimiter in header": ("a.tsv", "a\tb\n1,2\n", ["a.tsv", "line 2", "commas", "tab"]),
    "unclosed quote": ("a.csv", 'a,b\n1,2\n"3,4\n5,6\n', ["a.csv", "quote that never closes", "line 3"]),
    "quote inside a field": ("a.csv", 'a,b\n1,x "y,z" w\n', ["a.csv", "line 2"]),
    "inch marks in two rows": ("a.csv", 'a,b,c\n1,2,3\n1,2,5" x\n6" x,2,3\n', ["a.csv", "line 3", '1,2,5" x']),
    "inch marks that make up rows": ("a.csv", 'a,b\n1,2\n5" pipe,1\n6" pipe,2\n', ["a.csv", "quotes", "line 3"]),
    "inch mark in one row": ("a.csv", 'a,b\n1,2\n5" pipe,1\n7,2\n', ["a.csv", "quote", "line 3"]),
    "old line ends": ("a.csv", "a,b\r1,2\r3,4\r", ["a.csv", "carriage return", "line 1"]),
    "an old line end": ("a.csv", "a\r\n1\r\n2\r3\r\n", ["a.csv", "carriage return", "line 3"]),
    "huge field": ("a.csv", "a,b\n1,2\n3," + "z" * 1_100_000 + "\n", ["a.csv", "huge field", "line 3", "'b'"]),
    "endless field": ("a.csv", "a,b\n1," + "z" * (65 << 20), ["a.csv", "huge field", "line 2"]),
    "bad UTF-8": ("a.csv", b"a,b\n1,2\ncaf\xe9,4\n", ["a.csv", "UTF-8", "0xe9", "byte 4 of line 3"]),
    "UTF-16": ("a.csv", "a,b\n1,2\n".encode("utf-16"), ["a.csv", "UTF-16", "line 1"]),
    "NUL byte": ("a.csv", b"a,b\n1,2\n3,\x00\n", ["a.csv", "NUL", "line 3"]),
    "truncated gzip": ("a.csv.gz", ZIPPED[:-20], ["a.csv.gz", "truncated"]),
    "damaged gzip": ("a.csv.gz", ZIPPED[:40] + b"\xff" * 8 + ZIPPED[48:], ["a.csv.gz", "damaged"]),
    "not gzip": ("a.csv.gz", GOOD, ["a.csv.gz", "gzip", "69 64"]),
    "mixed numbers": ("a.csv", "x\n" + "1\n" * 19 + "oops\n", ["a.csv", "'x'", "mixed types", "'oops'", "(line 21)"]),
    "mixed timestamps": ("a.csv", "d\n" + "2020-01-01\n" * 19 + "soon\n", ["a.csv", "'d'", "'soon'", "row 20"]),
    "infinite": ("a.csv", "x,y\n1,2\n-inf,3\n", ["a.csv", "'x'", "non-finite", "-inf", "row 2 (line 3)"]),
    "not Parquet": ("a.parquet", GOOD, ["a.parquet", "whole parquet file"]),
    "not Arrow": ("a.arrow", GOOD, ["a.arrow", "whole Arrow IPC file"]),
    "unknown extension": ("a.xlsx", b"PK", ["a.xlsx", ".xlsx", ".parquet", ".csv"]),
    "bad JSON": ("a.jsonl", '{"x": 1}\n{"x": \n', ["a.jsonl", "bad JSON", "line 2"]),
    "JSON list": ("a.jsonl", '{"x": 1}\n[1]\n', ["a.jsonl", "list", "line 2"]),
    "JSON types": ("a.jsonl", '{"x": 1}\n\n{"x": "b"}\n', ["a.jsonl", "'x'", "inconsistent types", "line 3", '"b"']),
    "JSON scalar for a list": ("a.jsonl", '{"x": [1]}\n{"x": 1}\n', ["a.jsonl", "'x'", "line 2", "a list of"]),
    "JSON object inside": ("a.jsonl", '{"x": {"y": 1}}\n', ["a.jsonl", "'x'", "line 1", "object"]),
    "half a surrogate": ("a.jsonl", '{"x": "a"}\n{"x": "\\ud800"}\n', ["a.jsonl", "\\ud800", "line 2"]),
    "half a surrogate in a name": ("a.jsonl", '{"\\udfff": 1}\n', ["a.jsonl", "\\udfff", "line 1"]),
    "blank JSON lines": ("a.jsonl", "\n\n", ["a.jsonl", "column"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_file(case: str, tmp_path: Path) -> None:
    name, content, named = FILES[case]
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        list(open_source(tmp_path / name).chunks())
    missing = [part for part in named if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
    assert "\n" not in str(caught.value)


def test_truncated_parquet(tmp_path: Path) -> None:
    whole = parquet_bytes(tmp_path)
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.parquet.*whole parquet"):
        open_source(tmp_path / "cut.parquet")


def test_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "stays.csv").write_text(GOOD)
    with pytest.raises(DataError, match=r"stayz\.csv.*did you mean 'stays\.csv'"):
        open_source(tmp_path / "stayz.csv")


def test_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv.*folder"):
        open_source(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "a.csv").chmod(0)
    with pytest.raises(DataError, match=r"a\.csv.*Permission"):
        open_source(tmp_path / "a.csv")


ARRAYS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "flat": (lambda: np.zeros(5), ["shape [5]", "[N, T, D]"]),
    "four axes": (lambda: np.zeros((2, 2, 2, 2)), ["shape [2, 2, 2, 2]"]),
    "unequal widths": (lambda: [np.zeros((3, 2)), np.zeros((3, 4))], ["sequence 1", "[3, 4]", "2 values"]),
    "text": (lambda: [np.zeros((3, 2)), np.array([["a"]])], ["sequence 1", "dtype <U1"]),
    "objects": (lambda: np.array([[object()]]), ["sequence 0", "object"]),
    "complex": (lambda: np.zeros((2, 3, 1), complex), ["sequence 0", "complex128"]),
    "infinite": (lambda: [np.zeros((3, 2)), np.array([[0, 1], [np.inf, 0]])], ["sequence 1", "inf", "step 1"]),
    "no steps": (lambda: [np.zeros((3, 2)), np.zeros((0, 2))], ["sequence 1", "[0, 2]"]),
    "no sequences": (list, ["0 sequences"]),
    "ragged step": (lambda: [[[1, 2], [3]]], ["sequence 0"]),
    "a number": (lambda: 3, ["int", "path"]),
    "empty frame": (lambda: pl.DataFrame({"x": []}), ["DataFrame", "0 rows"]),
    "no columns": (pl.DataFrame, ["DataFrame", "column"]),
    "infinite frame": (lambda: pl.DataFrame({"x": [1.0, np.inf]}), ["'x'", "row 2", "inf"]),
    "infinite list": (lambda: {"x": [[1.0], [2.0, -np.inf]]}, ["'x'", "row 2", "inf"]),
    "structs": (lambda: {"x": [{"y": 1}]}, ["'x'", "Struct"]),
    "bytes": (lambda: {"x": [b"1"]}, ["'x'", "Binary"]),
    "mixed pandas": (lambda: pd.DataFrame({"x": [1, "a"]}), ["DataFrame", "one type"]),
    "unequal columns": (lambda: {"x": [1, 2, 3], "y": [1, 2]}, ["dict", "equal length"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_in_memory_data(case: str) -> None:
    make, named = ARRAYS[case]
    with pytest.raises(DataError) as caught:
        list(open_source(make()).chunks())
    missing = [part for part in named if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


TABLES: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "unknown id": ({"stay": [1], "x": [2]}, {"id": "stays"}, ["id=", "'stays'", "did you mean 'stay'"]),
    "unknown time": ({"minute": [1], "x": [2]}, {"time": "minutes"}, ["time=", "'minutes'", "did you mean 'minute'"]),
    "one column for both": ({"i": [1], "x": [2]}, {"id": "i", "time": "i"}, ["id=", "time=", "'i'"]),
    "text as time": ({"t": ["noon", "dusk"]}, {"time": "t"}, ["time=", "'t'", "'noon'", "row 1"]),
    "missing id": ({"i": ["a", " "], "x": [1, 2]}, {"id": "i"}, ["'i'", "row 2"]),
    "missing time": ({"t": [1.0, 2.0, np.nan]}, {"time": "t"}, ["'t'", "row 3"]),
    "null time": ({"t": [1, None]}, {"time": "t"}, ["'t'", "row 2"]),
    "duplicate time": ({"t": [5, 1, 5]}, {"time": "t"}, ["duplicate time 5", "rows 1 and 3"]),
    "duplicate id and time": ({"i": ["a", "b", "a"], "t": [1, 1, 1]}, {"id": "i", "time": "t"}, ["rows 1 and 3"]),
    "lists as id": ({"i": [[1], [2]]}, {"id": "i"}, ["'i'", "list"]),
    "unequal lists": ({"a": [[1], [1, 2]], "b": [[1], [1]]}, {}, ["2 values in 'a'", "1 in 'b'", "row 2"]),
    "empty list": ({"a": [[1], []]}, {}, ["'a'", "row 2"]),
    "null list": ({"a": [[1], None]}, {}, ["'a'", "row 2"]),
    "unequal vectors": ({"a": [[[1, 2]], [[1, 2], [1]]]}, {}, ["'a'", "row 2", "vectors of 2"]),
    "one id in two rows": (
        {"k": ["p", "q", "p"], "x": [[1, 2], [3], [4]]},
        {"id": "k"},
        ["two rows of k 'p'", "rows 1 and 3"],
    ),
    "huge time": (
        {"t": pl.Series([1, 2**63], dtype=pl.UInt64)},
        {"time": "t"},
        ["9223372036854775808", "'t'", "row 2"],
    ),
    "duplicate time in a list": ({"t": [[1], [2, 2]]}, {"time": "t"}, ["duplicate time 2", "row 2"]),
}  # fmt: skip


@pytest.mark.parametrize("limit", [1 << 30, 0], ids=["memory", "disk"])
@pytest.mark.parametrize("case", TABLES)
def test_table(case: str, limit: int) -> None:
    columns, options, named = TABLES[case]
    with pytest.raises(DataError) as caught:
        load_table(open_source(columns, name="stays"), memory_limit_bytes=limit, **options)
    missing = [part for part in ["stays", *named] if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


def test_kinds_must_exist_and_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'x'.*'numeric'"):
        open_source({"x": ["1"]}, kinds={"x": "numeric"})
    with pytest.raises(DataError, match=r"kinds=.*'y'.*one of 'x'"):
        open_source({"x": ["1"]}, kinds={"y": "number"})
    (tmp_path / "a.csv").write_text("x,y\n1,1\nb,2\n")
    with pytest.raises(DataError, match=r"'x' of a\.csv.*number.*'b' in row 2 \(line 3\)"):
        list(open_source(tmp_path / "a.csv", kinds={"x": "number"}).chunks())
