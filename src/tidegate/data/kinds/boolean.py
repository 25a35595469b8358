"""Booleans: −1 or 1, 0 where missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict


class Boolean(BaseModel):
    """False, true and missing become −1, 1 and 0: one dense column. Values are float64 0, 1 or NaN, [n]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["boolean"] = "boolean"
    name: str

    @classmethod
    def fit(cls, name: str, width: int, chunks: Iterable[np.ndarray]) -> Boolean:  # noqa: ARG003 - nothing to learn
        return cls(name=name)

    @property
    def width(self) -> int:
        return 1

    def encode(self, values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(2.0 * values - 1.0, nan=0.0).astype(np.float32).reshape(-1, 1)
