"""Times and ids come back as they were given, so that predictions join back to the input (C4)."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tidegate.data.restore import restored
from tidegate.data.source import open_source
from tidegate.data.table import load_table

MOMENTS = [datetime(2024, 1, 9, 3, 4, 5) + timedelta(hours=7 * i, milliseconds=3 * i) for i in range(80)]


def back_and_forth(frame: pl.DataFrame | Path, role: str) -> list[object]:
    """Return the column after reading it as time or id, and restoring it."""
    source = open_source(frame)
    table = load_table(source, **{role: "k"})
    values = pl.Series(table.ids) if role == "id" else pl.Series(table.read("k", 0, table.rows))
    return restored(source, "k", values).to_list()


SPELLINGS = [
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d",
    "%Y/%m/%d", "%Y-%m", "%d.%m.%Y %H:%M", "%d.%m.%Y", "%-d.%-m.%Y", "%Y-%-m-%-d", "%Y-%m-%dT%H:%M:%S%.3f",
    "%Y-%m-%d %H:%M:%S%.6f", "%Y-%m-%d %H:%M:%S+00:00",
]  # fmt: skip


@pytest.mark.parametrize("role", ["time", "id"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_text_keeps_its_spelling(spelling: str, role: str, tmp_path: Path) -> None:
    text = pl.Series("k", MOMENTS).dt.strftime(spelling).unique(maintain_order=True)
    frame = text.to_frame().with_columns(x=1.5)
    frame.write_csv(tmp_path / "d.csv")
    assert back_and_forth(tmp_path / "d.csv", role) == text.to_list()
    assert back_and_forth(frame, role) == text.to_list()


@pytest.mark.parametrize("role", ["time", "id"])
@pytest.mark.parametrize(
    "dtype",
    [
        pl.Date,
        pl.Datetime("ns"),
        pl.Datetime("ms"),
        pl.Datetime("us", "Europe/Berlin"),
        pl.Int32,
        pl.UInt16,
        pl.Float32,
    ],
    ids=str,
)
def test_types_come_back(dtype: pl.DataType, role: str) -> None:
    numbers = pl.Series("k", range(80)) if dtype not in (pl.Float32,) else pl.Series("k", range(80)) * 2.0
    moments = pl.Series("k", [datetime(2024, 1, 1) + timedelta(days=i) for i in range(80)])
    zone = getattr(dtype, "time_zone", None)
    values = (
        numbers.cast(dtype)
        if dtype in (pl.Int32, pl.UInt16, pl.Float32)
        else (moments.dt.replace_time_zone(zone) if zone else moments).cast(dtype)
    )
    source = open_source(values.to_frame().with_columns(x=1.5))
    table = load_table(source, **{role: "k"})
    read = pl.Series(table.ids) if role == "id" else pl.Series(table.read("k", 0, table.rows))
    found = restored(source, "k", read)
    assert found.dtype == values.dtype
    assert found.to_list() == values.to_list()


def test_mixed_spellings_become_iso() -> None:
    frame = pl.DataFrame({"k": ["2024-01-02", "03.01.2024 05:06"], "x": [1.0, 2.0]})
    assert back_and_forth(frame, "time") == ["2024-01-02 00:00:00", "2024-01-03 05:06:00"]


@pytest.mark.parametrize(
    ("first", "later"),
    [("%Y-%m-%d", "%Y-%m-%d %H:%M"), ("%Y-%m", "%Y-%m-%d"), ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f")],
)
def test_a_spelling_that_later_rows_do_not_share_truncates_nothing(first: str, later: str) -> None:
    days = pl.datetime_range(datetime(1900, 1, 1), datetime(2000, 1, 1), "1mo", eager=True)
    times = days[-1] + pl.Series([timedelta(days=i + 1, hours=i, minutes=7, seconds=9) for i in range(30)])
    spelled = times.dt.strftime(later)
    frame = pl.DataFrame({"k": [*days.dt.strftime(first), *spelled], "x": 1.5})
    found = pl.Series(back_and_forth(frame, "time"))
    assert len(days) > 1000
    form = {"%Y-%m-%d": "%Y-%m-%d", "%Y-%m-%d %H:%M": "%Y-%m-%d %H:%M"}.get(later, "%Y-%m-%d %H:%M:%S%.f")
    assert found[-30:].str.to_datetime("%Y-%m-%d %H:%M:%S").to_list() == spelled.str.to_datetime(form).to_list()


def test_durations_and_nested_times() -> None:
    frame = pl.DataFrame({"k": [timedelta(seconds=i) for i in range(5)], "x": [1.0] * 5})
    assert back_and_forth(frame, "time") == frame["k"].to_list()
    nested = pl.DataFrame({"k": [["2024-01-02", "2024-01-03"], ["2024-02-01"]], "x": [[1.0, 2.0], [3.0]]})
    assert back_and_forth(nested, "time") == ["2024-01-02", "2024-01-03", "2024-02-01"]
    days = pl.DataFrame({"k": [[date(2024, 1, 2), date(2024, 1, 3)]], "x": [[1.0, 2.0]]})
    assert back_and_forth(days, "time") == [date(2024, 1, 2), date(2024, 1, 3)]
