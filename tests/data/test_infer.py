"""Types found in text."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from tidegate.data import bytestream
from tidegate.data.infer import MARKERS
from tidegate.data.source import open_source

TIMES = pl.Datetime("us")


def column(tmp_path: Path, values: list[str], **options: object) -> pl.Series:
    (tmp_path / "t.csv").write_text("k,x\n" + "".join(f"w,{v}\n" for v in values))
    return pl.concat(open_source(tmp_path / "t.csv", **options).chunks())["x"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["1", "-2", "+3"], pl.Int64, [1, -2, 3]),
        (["1", "2.5", "1e3", ".5"], pl.Float64, [1.0, 2.5, 1000.0, 0.5]),
        (["0", "1", "1"], pl.Int64, [0, 1, 1]),
        (["00", "07", "23"], pl.Int64, [0, 7, 23]),
        (["007", "012"], pl.String, ["007", "012"]),
        (["true", "False", "YES", "no"], pl.Boolean, [True, False, True, False]),
        (["yes", "no", "maybe"], pl.String, ["yes", "no", "maybe"]),
        (["1", "2", "c", "d"], pl.String, ["1", "2", "c", "d"]),
        ([*MARKERS], pl.Float64, [None] * len(MARKERS)),
        (["4", *MARKERS], pl.Int64, [4] + [None] * len(MARKERS)),
        (["2020-01-02"], TIMES, [datetime(2020, 1, 2)]),
        (["1949-01", "1949-02"], TIMES, [datetime(1949, 1, 1), datetime(1949, 2, 1)]),
        (
            ["2020-01-02T03:04:05.5", "2020-01-02 03:04"],
            TIMES,
            [datetime(2020, 1, 2, 3, 4, 5, 500000), datetime(2020, 1, 2, 3, 4)],
        ),
        (
            ["2020-01-02T03:04:05Z", "2020-01-02T03:04:05+02:00", "2020-01-02 03:04 UTC"],
            TIMES,
            [datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 1, 4, 5), datetime(2020, 1, 2, 3, 4)],
        ),
        (["2020/01/02 03:04", "2020/1/2 03:04:05"], TIMES, [datetime(2020, 1, 2, 3, 4), datetime(2020, 1, 2, 3, 4, 5)]),
        (["02.01.2020", "31.12.2020"], TIMES, [datetime(2020, 1, 2), datetime(2020, 12, 31)]),
        (["2020-13-45", "2020-01-01"], pl.String, ["2020-13-45", "2020-01-01"]),
    ],
)
def test_type(values: list[str], dtype: pl.DataType, expected: list[object], tmp_path: Path) -> None:
    found = column(tmp_path, values)
    assert found.dtype == dtype
    assert found.to_list() == expected


def test_the_last_value_of_many_blocks_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bytestream, "BLOCK_BYTES", 64)
    found = column(tmp_path, ["1"] * 500 + ["2.5"])
    assert found.dtype == pl.Float64
    assert found[-1] == 2.5
    assert column(tmp_path, ["1"] * 50 + ["b"] * 50).dtype == pl.String


def test_kinds_win(tmp_path: Path) -> None:
    values = ["1"] * 19 + ["other"]
    assert column(tmp_path, values, kinds={"x": "category"}).to_list() == values
    assert column(tmp_path, ["007"], kinds={"x": "number"}).to_list() == [7]
    assert column(tmp_path, ["1", "2"], kinds={"x": "text"}).to_list() == ["1", "2"]


def test_strings_of_a_frame_that_look_like_numbers_stay_text() -> None:
    source = open_source({"zip": ["10", "20"], "day": ["2020-01-01", "NA"], "ok": ["yes", "no"], "w": [["1", "b"], []]})
    assert source.columns == {"zip": pl.String(), "day": TIMES, "ok": pl.Boolean(), "w": pl.List(pl.String)}
