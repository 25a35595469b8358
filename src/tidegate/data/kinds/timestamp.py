"""Time: calendar cycles from timestamps, elapsed time from any clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

MISSING = np.iinfo(np.int64).min
_SECOND = 1_000_000
_CYCLES: dict[str, float] = {"day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}


class Timestamp(BaseModel):
    """Fourier features `sin, cos(2π t / period)` of the day, week and year that the training part spans.

    A cycle is used when the data cover at least two of its periods (one for the year) and its typical step is
    at most a quarter of it. Values are int64 microseconds since 1970 (UTC), [n]; a missing one encodes as zeros.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["timestamp"] = "timestamp"
    name: str
    cycles: tuple[str, ...]

    @classmethod
    def fit(cls, name: str, width: int, chunks: Iterable[np.ndarray]) -> Timestamp:  # noqa: ARG003 - always one
        low, high, steps = np.inf, -np.inf, []
        for chunk in chunks:
            seconds = chunk[chunk != MISSING] / _SECOND
            if seconds.size:
                low, high = min(low, float(seconds.min())), max(high, float(seconds.max()))
                gaps = np.diff(seconds)
                steps.append(float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else np.inf)
        step = float(np.median(steps)) if steps else np.inf
        span = high - low if steps else 0.0
        used = tuple(
            cycle
            for cycle, period in _CYCLES.items()
            if step <= period / 4 and span >= (period if cycle == "year" else 2 * period)
        )
        return cls(name=name, cycles=used)

    @property
    def width(self) -> int:
        return 2 * len(self.cycles)

    def encode(self, values: np.ndarray) -> np.ndarray:
        seconds = values / _SECOND
        angles = [2 * np.pi * (seconds / _CYCLES[cycle]) for cycle in self.cycles]
        waves = [wave for angle in angles for wave in (np.sin(angle), np.cos(angle))]
        if not waves:
            return np.zeros((len(values), 0), dtype=np.float32)
        encoded = np.stack(waves, axis=1).astype(np.float32)
        encoded[values == MISSING] = 0
        return encoded
