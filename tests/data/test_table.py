"""Rows grouped by sequence and ordered by time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table

LEAST = np.iinfo(np.int64).min


@pytest.fixture(params=[1 << 30, 0], ids=["memory", "disk"])
def limit(request: pytest.FixtureRequest) -> int:
    return request.param


def load(columns: object, limit: int, **options: str) -> Table:
    return load_table(open_source(columns, name="t"), memory_limit_bytes=limit, **options)


def column(table: Table, name: str) -> list[float]:
    return table.read(name, 0, table.rows).tolist()


def test_long_table_is_grouped_and_sorted(limit: int) -> None:
    table = load(
        {"id": ["b", "a", "b", "a", "c"], "t": [2, 5, 1, 4, 0], "x": [1, 2, 3, 4, 5]}, limit, id="id", time="t"
    )
    assert table.ids == ["b", "a", "c"]
    assert table.offsets.tolist() == [0, 2, 4, 5]
    assert column(table, "x") == [3, 1, 4, 2, 5]
    assert [note.split(":")[0] for note in table.notes] == ["t", "t"]
    assert "sorted by time" in table.notes[1]
    assert (table.id_name, table.time_name, table.name) == ("id", "t", "t")


def test_rows_in_order_need_no_note(limit: int) -> None:
    table = load({"id": [7, 7, 3], "t": [1, 2, 0]}, limit, id="id", time="t")
    assert table.ids == [7, 3]
    assert table.notes == []


def test_without_id_there_is_one_sequence_and_without_time_order_stays(limit: int) -> None:
    table = load({"x": [3, 1, 2]}, limit)
    assert table.ids == [0]
    assert column(table, "x") == [3, 1, 2]
    assert load({"id": ["a", "b", "a"], "x": [3, 1, 2]}, limit, id="id").read("x", 0, 2).tolist() == [3, 2]


def test_what_columns_hold(limit: int) -> None:
    table = load(
        {
            "id": ["a", "a", "b"],
            "n": [1.5, None, 2.0],
            "w": ["dry", None, "wet"],
            "ok": [True, None, False],
            "at": [datetime(1970, 1, 1, 0, 0, 1), None, None],
            "site": ["s", "s", "r"],
            "none": [None] * 3,
        },
        limit,
        id="id",
    )
    np.testing.assert_array_equal(table.read("n", 0, 3), [1.5, np.nan, 2.0])
    np.testing.assert_array_equal(table.read("ok", 0, 3), [1, np.nan, 0])
    assert (column(table, "w"), table.read("w", 0, 1).dtype) == ([0, -1, 1], np.int32)
    assert column(table, "at") == [1_000_000, LEAST, LEAST]
    found = {c.name: (c.type, c.levels, c.missing, c.constant) for c in table.columns.values()}
    assert found == {
        "id": ("category", ("a", "b"), 0, True),
        "n": ("number", None, 1, False),
        "w": ("category", ("dry", "wet"), 1, False),
        "ok": ("boolean", None, 1, False),
        "at": ("timestamp", None, 2, False),
        "site": ("category", ("s", "r"), 0, True),
        "none": ("number", None, 3, True),
    }


def test_nested_table(limit: int) -> None:
    table = load({"x": [[1.0, 2.0], [3.0]], "w": [["u", "v"], ["u"]], "y": [5, 6]}, limit)
    assert table.ids == [0, 1]
    assert table.offsets.tolist() == [0, 2, 3]
    assert (column(table, "x"), column(table, "w"), column(table, "y")) == ([1, 2, 3], [0, 1, 0], [5, 5, 6])
    assert table.columns["y"].constant
    assert not table.columns["x"].constant


def test_nested_rows_with_an_id_are_sorted_by_their_times(limit: int) -> None:
    table = load({"k": ["p", "q"], "t": [[2, 1], [0]], "x": [[20, 10], [7]]}, limit, id="k", time="t")
    assert table.ids == ["p", "q"]
    assert column(table, "x") == [10, 20, 7]


def test_vectors(limit: int) -> None:
    table = load([np.arange(6.0).reshape(3, 2), np.array([[np.nan, 9.0]])], limit)
    assert table.columns["x"].width == 2
    assert table.columns["x"].missing == 1
    np.testing.assert_array_equal(table.read("x", 2, 4), [[4, 5], [np.nan, 9]])
    nested = load({"v": [[[1, 2], None], [[3, 4]]]}, limit)
    np.testing.assert_array_equal(nested.read("v", 0, 3), [[1, 2], [np.nan] * 2, [3, 4]])


def test_one_value_a_step_is_no_vector(limit: int) -> None:
    table = load(np.ones((2, 3, 1)), limit)
    assert table.read("x", 0, 6).shape == (6,)
    assert load(np.ones((2, 3)), limit).columns["x"].width == 1


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1.0, 2.0], [1, 2]),
        ([1.5, 2.0], ["1.5", "2.0"]),
        ([True, False], ["true", "false"]),
        (["01", "1"], ["01", "1"]),
        ([datetime(2020, 1, 1), datetime(2020, 1, 2)], ["2020-01-01T00:00:00.000000", "2020-01-02T00:00:00.000000"]),
    ],
)
def test_ids_keep_their_value(ids: list[object], expected: list[object], limit: int) -> None:
    assert load({"id": ids, "x": [1, 2]}, limit, id="id").ids == expected


def test_times_may_be_dates(limit: int) -> None:
    table = load({"day": ["2020-01-02", "2020-01-01"], "x": [2, 1]}, limit, time="day")
    assert column(table, "x") == [1, 2]


def test_readers_cannot_write_into_a_table_in_memory() -> None:
    values = load({"x": [1.0, 2.0]}, 1 << 30).read("x", 0, 2)
    with pytest.raises(ValueError, match="read-only"):
        values[0] = 9


def test_size_decides_where_rows_are_kept() -> None:
    assert load({"x": np.arange(1000.0)}, 40_000).in_memory
    assert not load({"x": np.arange(1000.0)}, 20_000).in_memory


@pytest.mark.data
def test_beijing(shared_data: Path) -> None:
    table = load_table(open_source(shared_data / "beijing_pm25" / "pollution.csv.gz"), time="No")
    assert table.rows == 43_824
    assert table.columns["pm2.5"].missing == 2_067
    assert table.columns["cbwd"].levels == ("NW", "cv", "NE", "SE")


@pytest.mark.data
def test_ett_times_are_hours(shared_data: Path) -> None:
    table = load_table(open_source(shared_data / "ett" / "ETTh1.csv.gz"), time="date")
    assert set(np.diff(table.read("date", 0, table.rows))) == {3_600_000_000}
    assert pl.Series(table.read("OT", 0, 1)).item() == pytest.approx(30.531, abs=1e-4)
