"""Numbers, one or a vector per step: standardised, with a mask where values are missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from tidegate.errors import DataError

_MOST_SPREAD = float(np.finfo(np.float32).max)
_MOST_DEVIATIONS, _MOST_SCALED = 1e6, 1e18
"""What a network reads, and what a target is at most: squares of the latter are finite in float32 too."""


class Number(BaseModel):
    """`z = (x − mean) / std` per component; a missing value becomes 0 and a mask column says so.

    The mask columns (1 = observed) exist only where the training part has missing values. `z` is held within a million
    standard deviations, which no value of a training part of less than 10^12 rows can pass. Columns that spread beyond
    float32 are refused.
    Values are float64 [n] or [n, width]; the encoding is float32 [n, width] or [n, 2·width].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["number"] = "number"
    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masked: bool

    @classmethod
    def fit(cls, name: str, width: int, chunks: Iterable[np.ndarray]) -> Number:
        """Learn mean and standard deviation from chunks [n] or [n, width] of the training part."""
        mean, std, missing, most = _moments(width, chunks)
        if not (np.isfinite(mean).all() and (std <= _MOST_SPREAD).all()):
            raise DataError(
                f"scaling column {name!r}",
                expected=f"numbers with a standard deviation of at most {_MOST_SPREAD:.2g}",
                got=f"values as large as {most:.3g}",
                hint="mend or leave out such values, or take their logarithm",
            )
        # A constant column leaves rounding noise in the spread; dividing by it would make garbage of new values.
        std = np.where(std > 1e-9 * np.maximum(np.abs(mean), 1e-30), std, 1.0)
        return cls(name=name, mean=tuple(mean.tolist()), std=tuple(std.tolist()), masked=missing)

    @property
    def width(self) -> int:
        return len(self.mean) * (2 if self.masked else 1)

    def encode(self, values: np.ndarray) -> np.ndarray:
        scaled = np.clip(self.scale(values), -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
        missing = np.isnan(scaled)
        filled = np.where(missing, np.float32(0), scaled)
        return np.concatenate([filled, (~missing).astype(np.float32)], axis=1) if self.masked else filled

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Return the standardised values, float32 [n, width] within ±10^18, NaN where missing."""
        raw = values.reshape(-1, len(self.mean))
        with np.errstate(over="ignore"):
            scaled = (raw - np.asarray(self.mean)) / np.asarray(self.std)
        return np.clip(scaled, -_MOST_SCALED, _MOST_SCALED).astype(np.float32)


def _moments(width: int, chunks: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray, bool, float]:
    """Return mean and standard deviation [width], whether values are missing, and the largest magnitude."""
    count, mean, spread = np.zeros(width), np.zeros(width), np.zeros(width)
    missing, most = False, 0.0
    for chunk in chunks:
        values = chunk.reshape(-1, width)
        seen = ~np.isnan(values)
        missing = missing or not seen.all()
        new = seen.sum(0)
        known = np.where(seen, values, 0.0)
        most = max(most, float(np.abs(known).max(initial=0.0)))
        with np.errstate(over="ignore", invalid="ignore"):
            chunk_mean = known.sum(0) / np.maximum(new, 1)
            chunk_spread = (np.where(seen, values - chunk_mean, 0.0) ** 2).sum(0)
            # Chan, Golub & LeVeque (1983): parallel update, stable for values far from zero.
            total = count + new
            shift = np.where(new > 0, chunk_mean - mean, 0.0)
            spread = spread + chunk_spread + shift**2 * count * new / np.maximum(total, 1)
            mean = mean + shift * new / np.maximum(total, 1)
        count = total
    return mean, np.sqrt(spread / np.maximum(count, 1)), missing, most
