"""Rows grouped by sequence and ordered by time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data import source
from tidegate.data.restore import restored
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
    found = {c.name: (c.type, c.levels, c.missing, c.patchy) for c in table.columns.values()}
    assert found == {
        "id": ("category", ("a", "b"), 0, False),
        "n": ("number", None, 1, True),
        "w": ("category", ("dry", "wet"), 1, True),
        "ok": ("boolean", None, 1, True),
        "at": ("timestamp", None, 2, True),
        "site": ("category", ("s", "r"), 0, False),
        "none": ("number", None, 3, False),
    }


def test_a_value_written_in_some_rows_is_constant_and_patchy(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_CHUNK_ROWS", 2)
    table = load(
        {
            "id": ["a"] * 5 + ["b"] * 3,
            "label": [None, "u", None, None, "u", "v", None, None],
            "other": [None, "u", None, None, "v", "v", None, None],
            "number": [1.5, None, 1.5, None, None, 2.0, 2.0, None],
            "plain": [1.0] * 5 + [None] * 3,
        },
        limit,
        id="id",
    )
    assert {n for n, c in table.columns.items() if c.constant} == {"id", "label", "number", "plain"}
    assert {n for n, c in table.columns.items() if c.patchy} == {"label", "other", "number"}


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


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([7.0, 8.0, 7.5, 7.0], ["7.0", "8.0", "7.5"]),
        ([7.0, 8.0, 9.0, 7.0], [7, 8, 9]),
        ([1e20, 8.0, 9.0, 1e20], ["1e+20", "8.0", "9.0"]),
        (pl.Series([1.1, 2, 2, 1.1], dtype=pl.Float32), ["1.1", "2.0"]),
    ],
)
def test_ids_of_floats_are_of_one_type(
    ids: object, expected: list[object], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_CHUNK_ROWS", 2)
    assert load({"id": ids, "x": [1, 2, 3, 4]}, limit, id="id").ids == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["1.1", "1.10", "1.1"], ["1.1", "1.10"]),
        (["12345678901234567890", "12345678901234567891"], ["12345678901234567890", "12345678901234567891"]),
        (["7", "-8", "9223372036854775807"], [7, -8, 9223372036854775807]),
        (["7", "07", "+7", "7.0"], ["7", "07", "+7", "7.0"]),
        (["1", "2", "NA", "None", "?"], ["1", "2", "NA", "None", "?"]),
        (["1e5", "12e400", "5"], ["1e5", "12e400", "5"]),
        ([*map(str, range(30)), "12b"], [*map(str, range(30)), "12b"]),
        (["yes", "Yes", "no"], ["yes", "Yes", "no"]),
        (["2020-01-01", "2020-01-01 00:00"], ["2020-01-01", "2020-01-01 00:00"]),
    ],
)
def test_ids_in_a_text_file_that_differ_stay_different(
    ids: list[str], expected: list[object], limit: int, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("id,x\n" + "".join(f"{v},1\n" for v in ids))
    opened = open_source(tmp_path / "t.csv")
    table = load_table(opened, id="id", memory_limit_bytes=limit)
    assert table.ids == expected
    assert restored(opened, "id", pl.Series(table.ids)).to_list() == expected


def test_decimal_ids_keep_their_digits(limit: int) -> None:
    ids = pl.Series(["12345678901234567890", "12345678901234567891"]).cast(pl.Decimal(20, 0))
    opened = open_source({"id": ids, "x": [1, 2]})
    table = load_table(opened, id="id", memory_limit_bytes=limit)
    assert restored(opened, "id", pl.Series(table.ids)).to_list() == ids.to_list()


def test_whole_number_times_keep_their_digits(limit: int, tmp_path: Path) -> None:
    times = [1_700_000_000_000_000_003, 1_700_000_000_000_000_001, 1_700_000_000_000_000_002]
    pl.DataFrame({"t": times, "x": [3, 1, 2]}).write_csv(tmp_path / "t.csv")
    for data in (tmp_path / "t.csv", {"t": times, "x": [3, 1, 2]}):
        opened = open_source(data)
        table = load_table(opened, time="t", memory_limit_bytes=limit)
        assert table.read("t", 0, 3).dtype == np.int64
        assert restored(opened, "t", pl.Series(table.read("t", 0, 3))).to_list() == sorted(times)
        assert column(table, "x") == [1, 2, 3]


VECTORS = {"x": pl.Series([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=pl.Array(pl.Float64, 2))}


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"k": ["p", "p", "q"]}, {"id": "k"}),
        ({"k": ["p", "p", "q"], "t": [0, 1, 0]}, {"id": "k", "time": "t"}),
        ({"t": [0, 1, 2]}, {"time": "t"}),
    ],
)
def test_arrays_beside_single_ids_and_times_are_vectors(
    columns: dict[str, object], options: dict[str, str], limit: int
) -> None:
    table = load(columns | VECTORS, limit, **options)
    assert (table.rows, table.columns["x"].width) == (3, 2)
    np.testing.assert_array_equal(table.read("x", 0, 3), [[1, 2], [3, 4], [5, 6]])


def test_arrays_of_which_a_row_is_a_sequence_stay_nested(limit: int) -> None:
    table = load({"k": ["p", "q", "r"]} | VECTORS, limit, id="k")
    assert (table.ids, table.offsets.tolist()) == (["p", "q", "r"], [0, 2, 4, 6])
    assert load(VECTORS, limit).offsets.tolist() == [0, 2, 4, 6]


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
