"""Forecasting windows as indices into a table: nothing is copied until a batch is made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Window:
    """Window i looks back over rows [origin − L, origin) and ahead over [origin, origin + S), all arrays [n].

    `first` and `last` bound the series it lies in: a look-back that would reach before `first` is shorter, and steps at
    or after `last` have no truth. `sequence` is the number of that series.
    """

    origin: np.ndarray
    first: np.ndarray
    last: np.ndarray
    sequence: np.ndarray


@dataclass(frozen=True)
class Windows:
    """Every window of a table, series by series; memory grows with the number of series, not of windows.

    Series i has `counts[i]` origins one row apart, the first at row `start[i]`. `offsets` [N + 1] are the table's.
    """

    offsets: np.ndarray
    start: np.ndarray
    counts: np.ndarray

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.counts)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def at(self, chosen: np.ndarray) -> Window:
        """Return the windows numbered `chosen` [n]."""
        sequence = np.searchsorted(self._ends, chosen, side="right")
        origin = self.start[sequence] + chosen - (self._ends[sequence] - self.counts[sequence])
        return Window(origin, self.offsets[sequence], self.offsets[sequence + 1], sequence)


def window_origins(
    offsets: np.ndarray, begin: np.ndarray, end: np.ndarray, horizon: int, least_history: int
) -> Windows:
    """Return every window whose whole horizon lies in steps [begin, end) of its series.

    `offsets` [N + 1] are a table's; `begin` and `end` [N] count steps from each series' start. An origin has
    at least `least_history` steps before it, which may lie before `begin`: validation looks back into training.
    """
    low = np.maximum(begin, least_history)
    return Windows(offsets, offsets[:-1] + low, np.maximum(end - horizon + 1 - low, 0))
