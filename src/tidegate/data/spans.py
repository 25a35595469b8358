"""Long sequences a span of steps at a time, so that memory does not grow with their length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tidegate.data.batch import Batch
from tidegate.data.loader import Sequences, batch_order


class Spans:
    """Hands out sequences in spans of at most `window` steps: those of a batch follow one another, the first `begins`.

    The spans of a batch are equally long, but for what is left to the last. Which sequences share a batch is decided
    once, so that every epoch has as many steps; with a seed, batches come in another order every epoch, the same for
    the same (seed, epoch). A sequence that has ended has length 0.
    """

    def __init__(self, maker: Sequences, batch_size: int, window: int, seed: int | None = None) -> None:
        self.maker, self.seed = maker, seed
        self.together = list(batch_order(maker.lengths, batch_size, seed, 0))
        longest = np.array([int(maker.lengths[chosen].max(initial=1)) for chosen in self.together], np.int64)
        self.counts = -(-longest // window)
        self.sizes = -(-longest // np.maximum(self.counts, 1))

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
            batch = order[place]
            size = int(self.sizes[batch])
            first = size * (number - int(ends[place] - self.counts[batch]))
            yield self.maker.make(self.together[batch], first, size)
