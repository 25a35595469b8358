"""A padded batch: what a model reads and what a loss compares with."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
"""The tagging target of a step that has none (padding, or a missing label); torch's own convention."""


@dataclass(frozen=True)
class Batch:
    """B sequences, padded to the longest. Axes are those of `tidegate.shapes`.

    dense [B, T, F] float32 (padding is 0) · codes [B, T, K] int64 · lengths [B] int64 · rows [B] int64 (which sequence
    or window of the loader) · target: class index int64 [B], several classes float32 [B, C], numbers float32 [B, C],
    tags int64 [B, T] with `IGNORED` where there is none, or a forecast float32 [B, S, C] with NaN where missing.
    Forecasts also have history [B, L, C] (scaled targets of the look-back, NaN where missing),
    known_dense [B, S, Fk] and known_codes [B, S, Kk]. A batch that does not `begin` goes on where the same rows of
    the one before it ended.
    """

    dense: Tensor
    codes: Tensor
    lengths: Tensor
    rows: Tensor
    target: Tensor | None = None
    history: Tensor | None = None
    known_dense: Tensor | None = None
    known_codes: Tensor | None = None
    begins: bool = True

    @property
    def size(self) -> int:
        return self.lengths.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on `device`."""
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in held.items() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved)
