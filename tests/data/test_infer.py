"""Types found in text."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidegate.data import bytestream
from tidegate.data.infer import MARKERS
from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import DataError

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
        (["4", "n/a", "NaN", "NULL", "<NA>", "#N/A", "Na"], pl.Int64, [4] + [None] * 6),
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
    words = ["NA", "none", "-", "?", "", "a"]
    assert column(tmp_path, words, kinds={"x": "category"}).to_list() == [*words[:4], None, "a"]
    assert column(tmp_path, words).to_list() == [None] * 5 + ["a"]


def notes(tmp_path: Path, values: list[str], **options: object) -> list[str]:
    (tmp_path / "t.csv").write_text("x;y\n" + "".join(f"{v};1\n" for v in values))
    return load_table(open_source(tmp_path / "t.csv", **options)).notes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["1,5", "2,25", "-3,0"], "3 of 3 values look like numbers; not read as one: '1,5' in row 1 (line 2)"),
        (["17", "1,234", "1.234,5"], "3 of 3 values look like numbers; not read as one: '1,234' in row 2 (line 3)"),
        (["5 %", "7%", "$12.50"], "3 of 3 values"),
        (["1", "2", "3", "low", "high"], "3 of 5 values look like numbers; not read as one: 'low' in row 4 (line 5)"),
    ],
)
def test_text_that_looks_like_numbers_is_noted(values: list[str], said: str, tmp_path: Path) -> None:
    (note,) = notes(tmp_path, values)
    assert note.startswith("t.csv: column 'x': read as a category, though ")
    assert said in note
    assert notes(tmp_path, values, kinds={"x": "category"}) == []


@pytest.mark.parametrize("values", [["007", "012"], ["a", "b", "1"], ["1.2.3", "4.5.6"], ["1", "2"]])
def test_other_text_is_not_noted(values: list[str], tmp_path: Path) -> None:
    assert notes(tmp_path, values) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["Yes", "No"], ("No", "Yes")),
        (["", "FALSE", "TRUE"], ("FALSE", "TRUE")),
        (["true", "false"], ("false", "true")),
        (["1"], None),
    ],
)
def test_words_of_booleans_are_kept(values: list[str], words: tuple[str, str] | None, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("k,x\n" + "".join(f"w,{v}\n" for v in values))
    assert load_table(open_source(tmp_path / "t.csv")).columns["x"].words == words


def test_what_is_of_the_type_asked_for_is_left_alone() -> None:
    frame = pl.DataFrame({"x": pl.Series([1.5, 0.1], dtype=pl.Float32), "gap": [timedelta(seconds=1.5)] * 2})
    source = open_source(frame, kinds={"x": "number", "gap": "number"}, must_have=False)
    assert source.readings == {}
    assert source.columns == {"x": pl.Float32, "gap": pl.Float64}
    with pytest.raises(DataError, match=r"a number in every row, as in training or kinds=; got 'b' in row 1"):
        list(open_source({"x": ["b"]}, kinds={"x": "number"}).chunks())


def test_strings_of_a_frame_that_look_like_numbers_stay_text() -> None:
    source = open_source({"zip": ["10", "20"], "day": ["2020-01-01", "NA"], "ok": ["yes", "no"], "w": [["1", "b"], []]})
    assert source.columns == {"zip": pl.String(), "day": TIMES, "ok": pl.Boolean(), "w": pl.List(pl.String)}
