"""Forecasting windows as indices into a table: nothing is copied until a batch is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Forecast origins. Window i looks back over rows [origin − L, origin) and ahead over [origin, origin + S).

    `origin` [N] are rows of the table, `first` [N] and `last` [N] the bounds of the sequence each lies in: a look-back
    that would reach before `first` is shorter, and steps at or after `last` have no truth.
    """

    origin: np.ndarray
    first: np.ndarray
    last: np.ndarray
    sequence: np.ndarray

    def __len__(self) -> int:
        return len(self.origin)


def window_origins(
    offsets: np.ndarray, begin: np.ndarray, end: np.ndarray, horizon: int, least_history: int, stride: int = 1
) -> Windows:
    """Return every window whose whole horizon lies in steps [begin, end) of its sequence.

    `offsets` [N + 1] are a table's; `begin` and `end` [N] count steps from each sequence's start. An origin has
    at least `least_history` steps before it, which may lie before `begin`: validation looks back into training.
    """
    origins, owner = [], []
    for i in range(len(begin)):
        low = max(int(begin[i]), least_history)
        steps = np.arange(low, int(end[i]) - horizon + 1, stride)
        origins.append(steps + offsets[i])
        owner.append(np.full(len(steps), i))
    origin = np.concatenate(origins) if origins else np.zeros(0, np.int64)
    sequence = np.concatenate(owner).astype(np.int64) if owner else np.zeros(0, np.int64)
    return Windows(origin.astype(np.int64), offsets[sequence], offsets[sequence + 1], sequence)
