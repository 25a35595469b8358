"""Elapsed time since the previous step, for clocks that do not tick evenly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from tidegate.data.kinds.timestamp import MISSING

_MOST_SAMPLED = 1 << 22


class Elapsed(BaseModel):
    """`ln(1 + Δ / typical)`, one dense column, where Δ is the time since the previous step of the sequence.

    `typical` is the median positive Δ of the training part (of an even sample of it, beyond four million steps), in
    the clock's own unit; `clock` is the type of the time column. `width` is 0, and nothing is encoded, when 99 % of the
    training steps tick within 1 % of `typical`: the feature would be constant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["elapsed"] = "elapsed"
    name: str
    clock: Literal["number", "timestamp"]
    typical: float
    irregular: bool

    @classmethod
    def fit(cls, name: str, clock: Literal["number", "timestamp"], gaps: Iterable[np.ndarray]) -> Elapsed:
        """Learn from chunks of gaps [n] between steps of the training part, first steps left out."""
        sample = _evenly_thinned(gap[gap > 0] for gap in gaps)
        if not sample.size:
            return cls(name=name, clock=clock, typical=1.0, irregular=False)
        typical = float(np.median(sample))
        even = np.abs(sample - typical) <= 0.01 * typical
        return cls(name=name, clock=clock, typical=typical, irregular=bool(even.mean() < 0.99))

    @property
    def width(self) -> int:
        return int(self.irregular)

    def encode(self, gaps: np.ndarray) -> np.ndarray:
        """Return [n, 1] from gaps [n]; a first step's gap is 0."""
        return np.log1p(np.maximum(gaps, 0) / self.typical).astype(np.float32).reshape(-1, 1)


def _evenly_thinned(chunks: Iterable[np.ndarray]) -> np.ndarray:
    """Join chunks; of more than `_MOST_SAMPLED` values keep every second, fourth … in order."""
    kept: list[np.ndarray] = []
    size, passed, stride = 0, 0, 1
    for chunk in chunks:
        kept.append(chunk[-passed % stride :: stride])
        size, passed = size + kept[-1].size, passed + chunk.size
        while size > _MOST_SAMPLED:
            kept, stride = [np.concatenate(kept)[::2]], 2 * stride
            size = kept[0].size
    return np.concatenate(kept).astype(np.float64) if kept else np.zeros(0)


def time_gaps(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return float64 gaps [n] of `values` [n + 1] (one row before the stretch leads), 0 where `first` [n]."""
    if values.dtype == np.int64:
        gaps = np.diff(values).astype(np.float64)
        gaps[(values[1:] == MISSING) | (values[:-1] == MISSING)] = 0
    else:
        gaps = np.nan_to_num(np.diff(values))
    gaps[first] = 0
    return gaps
