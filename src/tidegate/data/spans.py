"""Long sequences a span of steps at a time, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tidegate.data.batch import Batch
from tidegate.data.loader import Sequences, batch_order


class Spans:
    """Hands out sequences `window` steps at a time: the spans of a batch follow one another, the first `begins`.

    Which sequences share a batch is decided once, so that every epoch has as many steps; with a seed, batches come in
    another order every epoch, the same for the same (seed, epoch). A sequence that has ended has length 0.
    """

    def __init__(self, maker: Sequences, batch_size: int, window: int, seed: int | None = None) -> None:
        self.maker, self.window, self.seed = maker, window, seed
        self.together = list(batch_order(maker.lengths, batch_size, seed, 0))
        longest = [int(maker.lengths[chosen].max(initial=1)) for chosen in self.together]
        self.counts = -(-np.array(longest, np.int64) // window)

    @property
    def steps(self) -> int:
        return int(self.counts.sum())

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        order = np.arange(len(self.together))
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        ends = self.counts[order].cumsum()
        for number in range(start, self.steps):
            place = int(np.searchsorted(ends, number, side="right"))
            span = number - int(ends[place] - self.counts[order[place]])
            yield self.maker.make(self.together[order[place]], span * self.window, self.window)
