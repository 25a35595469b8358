"""The rows a forecast is made for: their times, their known columns, and nothing invented (D4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tidegate.data import horizon
from tidegate.data.horizon import future, steps_with_truth
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import DataError


def series(lengths: dict[str, int], given: int = 0, *, limit: int = 1 << 30, **columns: Any) -> Table:
    """Return series of ramps, with `given` more rows that have no target."""
    rows = [
        {"shop": name, "t": t, "y": 100.0 * i + t if t < n else None, "size": float(i), "open": t % 7 < 6}
        for i, (name, n) in enumerate(lengths.items())
        for t in range(n + given)
    ]
    frame = pl.DataFrame(rows).with_columns(**columns)
    return load_table(open_source(frame), id="shop", time="t", memory_limit_bytes=limit)


def part(table: Table, name: str, sequence: int) -> list[float]:
    return table.read(name, int(table.offsets[sequence]), int(table.offsets[sequence + 1])).tolist()


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_the_end_of_every_series_and_the_rows_after_it(limit: int) -> None:
    ahead = future(series({"a": 9, "b": 4}, limit=limit), ("y",), 5, 3, ("size",), ("size",))
    assert part(ahead.table, "t", 0) == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert part(ahead.table, "y", 0)[:6] == [3, 4, 5, 6, 7, 8]
    assert np.isnan(part(ahead.table, "y", 0)[6:]).all()
    assert part(ahead.table, "t", 1) == [0, 1, 2, 3, 4, 5, 6]
    assert part(ahead.table, "size", 1) == [1.0] * 7
    assert np.isnan(part(ahead.table, "open", 1)[4:]).all()
    window = ahead.windows().at(np.arange(2))
    assert window.origin.tolist() == [6, 9 + 4]
    assert window.sequence.tolist() == [0, 1]


def test_rows_without_a_target_are_the_future_and_keep_what_is_known() -> None:
    ahead = future(series({"a": 9}, given=5), ("y",), 4, 3, (), ("open",))
    assert part(ahead.table, "t", 0) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert part(ahead.table, "open", 0) == [float(t % 7 < 6) for t in range(4, 12)]


@pytest.mark.parametrize(
    "table",
    [
        series({"a": 9, "b": 9}),
        series({"a": 9, "b": 9}, given=2),
        series({"a": 9, "b": 9}, given=3, open=pl.when(pl.col("y").is_not_null()).then(pl.col("open"))),
        series({"a": 9, "b": 9}, open=pl.lit(False)),
    ],
    ids=["no rows", "too few", "empty", "constant here"],
)
def test_a_known_column_must_have_a_future(table: Table) -> None:
    with pytest.raises(DataError, match=r"3 rows after the last target, with values of 'open'.*in series 'a'"):
        future(table, ("y",), 4, 3, (), ("open",))


def test_a_static_column_may_not_begin_to_change() -> None:
    table = series({"a": 9, "b": 9}, size=pl.col("t").cast(pl.Float64))
    with pytest.raises(
        DataError, match="one value of 'size' in every series, as in training; got several in series 'a'"
    ):
        future(table, ("y",), 4, 3, ("size",), ("size",))


def test_a_series_without_any_target_is_named() -> None:
    table = series({"a": 3, "b": 3}, y=pl.when(pl.col("shop") == "a").then(pl.col("y")))
    with pytest.raises(DataError, match="none in series 'b'"):
        future(table, ("y",), 4, 3, (), ())


def test_the_last_truth_is_found_from_the_end_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(horizon, "_BLOCK_ROWS", 4)
    table = series({"a": 30, "b": 2}, given=11, y=pl.when(pl.col("t") != 5).then(pl.col("y")))
    assert steps_with_truth(table, ("y",)).tolist() == [30, 2]
    assert steps_with_truth(table, ("y", "open")).tolist() == [41, 13]
