"""A series' clock goes on as it went: by its step, by months, by workdays (C4, D4)."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from tidegate.data.calendar import next_times


def ahead(days: list[date] | pl.Series, more: int) -> list[str]:
    moments = np.array(list(days), dtype="datetime64[us]").astype(np.int64)
    return [str(m)[:10] for m in next_times(moments, more, "timestamp").astype("datetime64[us]")]


def every(interval: str, start: date, end: date) -> list[date]:
    return pl.date_range(start, end, interval, eager=True).to_list()


@pytest.mark.parametrize(
    ("days", "following"),
    [
        (every("1d", date(2024, 2, 1), date(2024, 2, 27)), ["2024-02-28", "2024-02-29", "2024-03-01"]),
        (every("1w", date(2024, 1, 3), date(2024, 3, 6)), ["2024-03-13", "2024-03-20", "2024-03-27"]),
        (every("1mo", date(2023, 1, 1), date(2023, 11, 1)), ["2023-12-01", "2024-01-01", "2024-02-01"]),
        (every("1mo", date(2023, 1, 15), date(2023, 11, 15)), ["2023-12-15", "2024-01-15", "2024-02-15"]),
        (every("1q", date(2022, 1, 1), date(2023, 10, 1)), ["2024-01-01", "2024-04-01", "2024-07-01"]),
        (every("1y", date(2016, 1, 1), date(2023, 1, 1)), ["2024-01-01", "2025-01-01", "2026-01-01"]),
        (every("1y", date(2016, 12, 31), date(2022, 12, 31)), ["2023-12-31", "2024-12-31", "2025-12-31"]),
        ([date(2023, 9, 30), date(2023, 10, 31), date(2023, 11, 30), date(2023, 12, 31)], ["2024-01-31", "2024-02-29"]),
        ([date(2023, 3, 31), date(2023, 6, 30), date(2023, 9, 30)], ["2023-12-31", "2024-03-31"]),
        (
            [d for d in every("1d", date(2024, 1, 1), date(2024, 1, 19)) if d.weekday() < 5],
            ["2024-01-22", "2024-01-23"],
        ),
        ([date(2024, 5, 1)], ["2024-05-02", "2024-05-03"]),
    ],
)
def test_timestamps(days: list[date], following: list[str]) -> None:
    assert ahead(days, len(following)) == following


def test_hours_keep_their_minutes_and_numbers_their_step() -> None:
    hours = np.arange("2024-03-01T00:30", "2024-03-03T00:30", np.timedelta64(1, "h"), dtype="datetime64[us]")
    found = next_times(hours.astype(np.int64), 2, "timestamp").astype("datetime64[us]")
    assert found.tolist() == [np.datetime64("2024-03-03T00:30").item(), np.datetime64("2024-03-03T01:30").item()]
    assert next_times(np.array([0.0, 0.5, 1.0, 2.0]), 2, "number").tolist() == [2.5, 3.0]
    exact = 1_700_000_000_001_000_000 + 1_000_000 * np.arange(5)
    assert next_times(exact, 2, "number").tolist() == [int(exact[-1]) + 1_000_000, int(exact[-1]) + 2_000_000]
    assert next_times(np.array([7.0]), 2, "number").tolist() == [8.0, 9.0]
