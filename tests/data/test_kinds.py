"""Kinds learn from what they are fitted on and encode the rest (C3, C4, C11)."""

from __future__ import annotations

import numpy as np
import pytest

from tidegate.data.kinds import Boolean, Category, Number, Timestamp, elapsed
from tidegate.data.kinds.elapsed import Elapsed, time_gaps
from tidegate.data.kinds.timestamp import MISSING
from tidegate.errors import DataError


def test_number_matches_numpy_over_any_chunks() -> None:
    values = np.random.default_rng(0).normal(1e6, 3.0, (1000, 2))
    values[::7, 1] = np.nan
    kind = Number.fit("v", 2, np.array_split(values, 13))
    assert kind.mean == pytest.approx(np.nanmean(values, 0))
    assert kind.std == pytest.approx(np.nanstd(values, 0))
    encoded = kind.encode(values)
    assert encoded.shape == (1000, 4)
    assert (encoded[::7, 1] == 0).all()
    assert (encoded[::7, 3] == 0).all()
    assert (encoded[:, 2] == 1).all()


def test_constant_number_is_not_blown_up() -> None:
    kind = Number.fit("v", 1, [np.full(1000, 0.1)])
    assert kind.std == (1.0,)
    assert kind.encode(np.array([0.1, 1.1])).ravel() == pytest.approx([0.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_new_magnitudes_stay_finite(masked: bool) -> None:
    kind = Number.fit("v", 1, [np.array([1.0, 2.0, np.nan if masked else 3.0])])
    encoded = kind.encode(np.array([1e200, -1e308, 1.5]))[:, 0]
    assert encoded[:2].tolist() == [1e6, -1e6]
    scaled = kind.scale(np.array([1e200, -1e308, np.nan])).ravel()
    assert scaled[:2].tolist() == pytest.approx([1e18, -1e18])
    assert np.isfinite(scaled[:2] ** 2).all()
    assert np.isnan(scaled[2])


@pytest.mark.parametrize("values", [[1e200, 1.0], [1.7e308, 1.7e308, 1.0], [1e39, -1e39]])
def test_a_spread_beyond_float32_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match=r"scaling column 'v'; expected .* at most 3\.4e\+38; got values as large as"):
        Number.fit("v", 1, [np.array(values)])


def test_large_values_of_little_spread_are_scaled() -> None:
    values = 1e30 * np.array([1.0, 2.0, 3.0])
    assert Number.fit("v", 1, [values]).encode(values).ravel() == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5])


def test_new_and_missing_categories_are_index_zero() -> None:
    levels = ("b", "a", "rare")
    kind = Category.fit("c", levels, [np.array([0, 1, -1], np.int32)])
    assert kind.levels == ("a", "b")
    assert kind.encode(np.array([0, 1, 2, -1], np.int32), levels).tolist() == [2, 1, 0, 0]
    assert kind.unseen(levels) == ["rare"]


def test_boolean_missing_is_zero() -> None:
    assert Boolean(name="b").encode(np.array([0.0, 1.0, np.nan])).ravel().tolist() == [-1.0, 1.0, 0.0]


def test_timestamp_uses_the_cycles_the_data_span() -> None:
    hours = np.arange(0, 24 * 21) * 3_600_000_000
    kind = Timestamp.fit("t", 1, [hours])
    assert kind.cycles == ("day", "week")
    encoded = kind.encode(np.array([0, 6 * 3_600_000_000, MISSING]))
    assert encoded[0, :2] == pytest.approx([0.0, 1.0], abs=1e-6)
    assert encoded[1, :2] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert (encoded[2] == 0).all()


def test_elapsed_is_a_feature_only_where_the_clock_is_uneven() -> None:
    assert Elapsed.fit("t", "number", [np.full(500, 60.0)]).width == 0
    kind = Elapsed.fit("t", "number", [np.array([1.0, 1.0, 3.0, 9.0])])
    assert kind.width == 1
    assert kind.encode(np.array([0.0, kind.typical])).ravel() == pytest.approx([0.0, np.log(2)])


def test_time_gaps_start_anew_with_each_sequence() -> None:
    values = np.array([5.0, 6.0, 100.0, 103.0])
    assert time_gaps(values, np.array([False, True, False])).tolist() == [1.0, 0.0, 3.0]


def test_elapsed_time_of_a_long_table_is_learnt_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    gaps = np.random.default_rng(0).exponential(5.0, 20_000)
    monkeypatch.setattr(elapsed, "_MOST_SAMPLED", 1000)
    kind = Elapsed.fit("t", "number", np.array_split(gaps, 97))
    assert kind.irregular
    assert kind.typical == pytest.approx(np.median(gaps), rel=0.1)
