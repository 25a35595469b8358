"""What a fitted model says of other tables (C3, C4)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidegate.data.features import Features, fit_features
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import DataError

MINUTES = [0, 1, 7, 20, 0, 2, 3, 50]


def load(**columns: Any) -> Table:
    frame = pl.DataFrame({"id": ["a"] * 4 + ["b"] * 4, "t": MINUTES, "x": np.arange(8.0), **columns})
    return load_table(open_source(frame), id="id", time="t")


def fitted(table: Table) -> Features:
    return fit_features(table, ["x"], [(0, 8)], clock="t")


def test_a_clock_of_another_type_is_refused() -> None:
    stamps = [datetime(2024, 1, 1) + timedelta(minutes=m) for m in MINUTES]
    numbers, moments = fitted(load()), fitted(load(t=stamps))
    assert numbers.check(load()) == []
    assert numbers.check(load(t=[m / 2 for m in MINUTES])) == []
    with pytest.raises(DataError, match="expected column 't' as number, as in training; got timestamp"):
        numbers.check(load(t=stamps))
    with pytest.raises(DataError, match="expected column 't' as timestamp, as in training; got number"):
        moments.check(load())


def test_whole_number_times_give_the_gaps_of_floats() -> None:
    whole, floats = load(), load(t=[float(m) for m in MINUTES])
    assert whole.read("t", 0, 1).dtype == np.int64
    np.testing.assert_array_equal(fitted(whole).encode(whole, 0, 8)[0], fitted(floats).encode(floats, 0, 8)[0])


def test_missing_values_that_training_never_saw_are_noted() -> None:
    gappy = load(x=[None, *range(7)])
    assert fitted(load()).check(gappy) == ["column 'x': missing values, none in training: read as the mean"]
    assert fitted(gappy).check(gappy) == []
