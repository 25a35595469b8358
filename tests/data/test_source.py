"""One table, however it arrives."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tidegate.data import source as module
from tidegate.data.source import open_source

ROWS = [
    {"id": "a", "t": 0, "x": 0.5, "ok": True, "at": datetime(2020, 1, 1, 10)},
    {"id": "a", "t": 1, "x": None, "ok": False, "at": datetime(2020, 1, 2)},
    {"id": "b", "t": 0, "x": 2.0, "ok": None, "at": None},
]
FRAME = pl.DataFrame(ROWS)


def write(form: str, folder: Path) -> object:
    path = folder / f"t.{form}"
    match form:
        case "csv":
            FRAME.write_csv(path)
        case "tsv":
            FRAME.write_csv(path, separator="\t")
        case "parquet":
            FRAME.write_parquet(path, row_group_size=2)
        case "arrow" | "feather":
            FRAME.write_ipc(path)
        case "jsonl" | "ndjson":
            path.write_text("\n".join(json.dumps(row, default=datetime.isoformat) for row in ROWS))
        case "polars":
            return FRAME
        case "lazy":
            return FRAME.lazy()
        case "pandas":
            return FRAME.to_pandas()
        case "pyarrow":
            return FRAME.to_arrow()
        case "dict":
            return FRAME.to_dict(as_series=False)
    return str(path)


FORMS = ["csv", "tsv", "parquet", "arrow", "feather", "jsonl", "ndjson", "polars", "lazy", "pandas", "pyarrow", "dict"]


@pytest.mark.parametrize("form", FORMS)
def test_same_rows_from_every_form(form: str, tmp_path: Path) -> None:
    source = open_source(write(form, tmp_path))
    frame = pl.concat(source.chunks()).with_columns(pl.col("x").fill_nan(None))
    assert frame.rows(named=True) == ROWS
    assert source.rows == 3
    assert source.columns == dict(frame.schema)
    assert source.columns["at"] == pl.Datetime("us")
    assert source.name == ("DataFrame" if form in ("polars", "lazy", "pandas", "pyarrow", "dict") else f"t.{form}")


def test_reading_twice_gives_the_same_and_chunks_join_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 10)
    frame = pl.DataFrame({"x": np.arange(95.0)})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=20)
    source = open_source(tmp_path / "t.parquet")
    for _ in range(2):
        chunks = list(source.chunks())
        assert len(chunks) > 4
        assert pl.concat(chunks)["x"].to_list() == list(range(95))


def test_dtypes_are_made_plain() -> None:
    east = timezone(timedelta(hours=2))
    source = open_source(
        pl.DataFrame(
            {
                "zone": [datetime(2020, 1, 1, 12, tzinfo=east).astimezone(UTC)],
                "date": [date(2020, 1, 2)],
                "gap": [timedelta(seconds=90)],
                "kind": pl.Series(["u"], dtype=pl.Categorical),
                "none": [None],
                "small": pl.Series([1.5], dtype=pl.Float32),
            }
        ).with_columns(pl.col("zone").dt.convert_time_zone("Asia/Tokyo"))
    )
    row = next(source.chunks()).row(0, named=True)
    assert row == {
        "zone": datetime(2020, 1, 1, 10),
        "date": datetime(2020, 1, 2),
        "gap": 90.0,
        "kind": "u",
        "none": None,
        "small": 1.5,
    }


def test_pandas_without_its_arrow_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan], "w": ["a", "b"]})

    def absent(*_: object, **__: object) -> None:
        raise ImportError("pyarrow")

    monkeypatch.setattr(pd.DataFrame, "__arrow_c_stream__", absent)
    assert pl.concat(open_source(frame).chunks()).to_dict(as_series=False) == {"x": [1.0, None], "w": ["a", "b"]}


@pytest.mark.parametrize("make", [lambda x: x, list, lambda x: [s.tolist() for s in x], lambda x: x.astype(np.float16)])
def test_arrays(make) -> None:
    x = np.arange(24.0).reshape(3, 4, 2)
    source = open_source(make(x))
    np.testing.assert_array_equal(next(source.chunks())["x"].to_numpy(), x.reshape(12, 2))
    assert source.lengths.tolist() == [4, 4, 4]


def test_nested_arrow() -> None:
    table = pa.table(
        {"x": [[1, 2], [3]], "v": pa.array([[[1.0, 2.0]] * 2, [[3.0, 4.0]]], pa.list_(pa.list_(pa.float32(), 2)))}
    )
    source = open_source(table)
    assert source.nested == ("x", "v")
