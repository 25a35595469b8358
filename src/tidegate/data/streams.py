"""Batches for language models: a text as parallel streams, a window of each at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tidegate.data.batch import IGNORED
from tidegate.data.tokens import TokenRow
from tidegate.data.vocabulary import END

_JITTER = 5
_HALF = 0.05


@dataclass(frozen=True)
class TextBatch:
    """Windows of B streams: tokens [B, T], `target` [B, T] the token after each, `IGNORED` in the padding; lengths [B].

    A batch that `begins` is the first of its streams; another one goes on where the one before it ended. `share` is
    the window's length over the usual one.
    """

    tokens: Tensor
    target: Tensor
    lengths: Tensor
    begins: bool = True
    share: float = 1.0

    def to(self, device: torch.device | str) -> TextBatch:
        """Return the same batch on `device`."""
        moved = {name: getattr(self, name).to(device) for name in ("tokens", "target", "lengths")}
        return dataclasses.replace(self, **moved)


class Streams:
    """Hands out a text as `rows` streams side by side, `window` tokens of each at a time, in order.

    With a seed, windows are of random length, other ones every epoch, the same for the same (seed, epoch): each is
    drawn from N(window, 5), or with probability 0.05 from N(window/2, 5). Source: Merity, Keskar & Socher 2018
    (1708.02182), section 4.1. Deviation: lengths are scaled so that every epoch has as many windows.
    """

    def __init__(self, row: TokenRow, rows: int, window: int, seed: int | None = None) -> None:
        self.row, self.window, self.seed = row, window, seed
        predicted = row.count - 1
        self.rows = max(1, min(rows, predicted // max(window, 2)))
        self.each = -(-predicted // self.rows)
        starts = np.arange(self.rows) * self.each
        self.starts, self.sizes = starts, np.minimum(predicted - starts, self.each)

    @property
    def steps(self) -> int:
        return -(-self.each // self.window)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[TextBatch]:
        bounds = self._bounds(epoch)
        for number in range(start, self.steps):
            low, high = int(bounds[number]), int(bounds[number + 1])
            yield self._batch(low, high, begins=number == 0)

    def _bounds(self, epoch: int) -> np.ndarray:
        """Return where in its stream each window begins, and where the last one ends."""
        count = self.steps
        if self.seed is None or count == 1:
            return np.minimum(np.arange(count + 1) * self.window, self.each)
        random = np.random.default_rng([self.seed, epoch])
        base = np.where(random.random(count) < _HALF, self.window / 2, self.window)
        drawn = np.maximum(random.normal(base, _JITTER), min(_JITTER, self.window))
        ends = np.round(np.cumsum(drawn) * self.each / drawn.sum()).astype(np.int64)
        # No window is empty: each ends at least a token after the one before, and leaves one for each that follows.
        least = np.arange(1, count + 1)
        ends = np.minimum(np.maximum.accumulate(np.maximum(ends - least, 0)) + least, self.each - count + least)
        return np.concatenate([[0], ends])

    def _batch(self, low: int, high: int, begins: bool) -> TextBatch:
        lengths = np.clip(self.sizes - low, 0, high - low)
        tokens = np.full((self.rows, high - low + 1), END)
        for row, (first, length) in enumerate(zip(self.starts + low, lengths, strict=True)):
            if length:
                tokens[row, : length + 1] = self.row.read(int(first), int(first + length + 1))
        target = torch.from_numpy(tokens[:, 1:].copy())
        target[torch.arange(high - low) >= torch.from_numpy(lengths)[:, None]] = IGNORED
        share = 1.0 if self.seed is None or self.steps == 1 else (high - low) / self.window
        return TextBatch(torch.from_numpy(tokens[:, :-1].copy()), target, torch.from_numpy(lengths), begins, share)
