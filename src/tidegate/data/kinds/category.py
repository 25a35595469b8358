"""Categories: an index into the training vocabulary; 0 is missing or new."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict


class Category(BaseModel):
    """A vocabulary learned from the training part. Index 0 means missing or not seen in training.

    Values are int32 codes [n] into a table's own `levels`, −1 = missing; the encoding is int64 [n].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["category"] = "category"
    name: str
    levels: tuple[str, ...]

    @classmethod
    def fit(cls, name: str, table_levels: tuple[str, ...], chunks: Iterable[np.ndarray]) -> Category:
        """Keep the levels that occur in the training chunks, sorted."""
        seen = np.zeros(len(table_levels) + 1, dtype=bool)
        for codes in chunks:
            seen[codes] = True
        return cls(name=name, levels=tuple(sorted(v for v, kept in zip(table_levels, seen, strict=False) if kept)))

    @property
    def cardinality(self) -> int:
        return len(self.levels) + 1

    def encode(self, codes: np.ndarray, table_levels: tuple[str, ...]) -> np.ndarray:
        index = {level: i + 1 for i, level in enumerate(self.levels)}
        lookup = np.array([index.get(level, 0) for level in table_levels] + [0], dtype=np.int64)
        return lookup[codes]

    def unseen(self, table_levels: tuple[str, ...]) -> list[str]:
        """Return the levels of a table that training never saw."""
        known = set(self.levels)
        return [level for level in table_levels if level not in known]
