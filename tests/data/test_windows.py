"""Forecasting windows (C4, D4): every origin, whole horizons, no window across two sequences."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data.windows import window_origins


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 6), st.integers(1, 6))
def test_windows_are_every_place_a_horizon_fits(lengths: list[int], horizon: int, history: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    windows = window_origins(offsets, np.zeros(len(lengths), int), np.array(lengths), horizon, history)
    expected = [
        (i, offsets[i] + t) for i, n in enumerate(lengths) for t in range(n) if t >= history and t + horizon <= n
    ]
    every = windows.at(np.arange(len(windows)))
    assert list(zip(every.sequence, every.origin, strict=True)) == expected
    assert (every.first <= every.origin - history).all()
    assert (every.origin + horizon <= every.last).all()


def test_a_validation_window_looks_back_into_training_but_scores_only_its_own_part() -> None:
    windows = window_origins(np.array([0, 100]), np.array([80]), np.array([100]), 10, 30)
    assert windows.at(np.arange(len(windows))).origin.tolist() == list(range(80, 91))
