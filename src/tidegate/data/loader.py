"""Batches in a resumable order: shuffled by (seed, epoch), bucketed by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from tidegate.data.balance import balanced, balanced_count
from tidegate.data.batch import Batch
from tidegate.data.features import Encoded
from tidegate.data.windows import Windows

_BUCKET_BATCHES = 32
"""Sequences are sorted by length within this many batches' worth: little padding, still a random order."""


def batch_order(
    lengths: np.ndarray,
    batch_size: int,
    seed: int | None,
    epoch: int,
    start: int = 0,
    most: int | None = None,
    groups: Sequence[np.ndarray] = (),
) -> Iterator[np.ndarray]:
    """Yield the batches of one epoch from `start` on as index arrays; the same (seed, epoch) gives the same batches.

    With `seed` None the order is the given one and nothing is shuffled (evaluation, prediction). Otherwise
    sequences are shuffled, sorted by length within pools of `_BUCKET_BATCHES` batches, and the batches shuffled.
    Of more than `most` sequences, that many are taken: evenly spread, or each epoch others at random. With `groups`,
    the indices of each group, a shuffled epoch has equally many of each (see `balanced`).
    """
    count = len(lengths) if most is None else min(most, len(lengths))
    count = balanced_count(groups) if groups else count
    starts = np.arange(0, count, batch_size)
    if seed is None:
        for at in starts[start:]:
            yield np.arange(at, min(at + batch_size, count)) * len(lengths) // count
        return
    random = np.random.default_rng([seed, epoch])
    if groups:
        order = balanced(groups, random)
    elif count == len(lengths):
        order = random.permutation(count)
    else:
        order = random.choice(len(lengths), count, replace=False)
    if count and lengths.min() != lengths.max():
        pool = batch_size * _BUCKET_BATCHES
        for at in range(0, count, pool):
            some = order[at : at + pool]
            order[at : at + pool] = some[np.argsort(lengths[some], kind="stable")]
        starts = random.permutation(starts)
    yield from (order[at : at + batch_size] for at in starts[start:])


Made = TypeVar("Made", covariant=True)


class Maker(Protocol[Made]):
    """Makes the batch of the chosen items; knows how long each is."""

    lengths: np.ndarray

    def make(self, chosen: np.ndarray) -> Made: ...


class Loader(Generic[Made]):
    """Hands out the batches of an epoch, `most` items or all, from any step on. `seed` None keeps the given order.

    With `groups`, the items of each class, an epoch has equally many of each.
    """

    def __init__(
        self,
        maker: Maker[Made],
        batch_size: int,
        seed: int | None = None,
        most: int | None = None,
        groups: Sequence[np.ndarray] = (),
    ) -> None:
        self.maker, self.batch_size, self.seed, self.most, self.groups = maker, batch_size, seed, most, groups

    @property
    def items(self) -> int:
        """How many sequences or windows an epoch takes."""
        if self.groups:
            return balanced_count(self.groups)
        count = len(self.maker.lengths)
        return count if self.most is None else min(count, self.most)

    @property
    def steps(self) -> int:
        return -(-self.items // self.batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Made]:
        order = batch_order(self.maker.lengths, self.batch_size, self.seed, epoch, start, self.most, self.groups)
        for chosen in order:
            yield self.maker.make(chosen)


class Sequences:
    """Whole sequences of a table, with a target each (`targets` [N, …]) or one a step (`step_targets`, rows → tags)."""

    def __init__(
        self,
        encoded: Encoded,
        chosen: np.ndarray,
        targets: torch.Tensor | None = None,
        step_targets: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        offsets = encoded.table.offsets
        self.encoded, self.targets, self.step_targets = encoded, targets, step_targets
        self.sequences = chosen
        self.starts = offsets[chosen]
        self.lengths = offsets[chosen + 1] - self.starts

    def make(self, chosen: np.ndarray, first: int = 0, most: int | None = None) -> Batch:
        """Return the chosen sequences from step `first` on, at most `most` steps of each."""
        lengths = np.clip(self.lengths[chosen] - first, 0, most)
        steps = np.arange(max(int(lengths.max(initial=0)), 1))
        index, mask = self.starts[chosen][:, None] + first + steps, steps < lengths[:, None]
        dense, codes = self.encoded.gather(index, mask)
        target = None
        if self.targets is not None:
            target = self.targets[torch.from_numpy(chosen)]
        elif self.step_targets is not None:
            target = torch.from_numpy(self.step_targets(index, mask))
        return Batch(
            torch.from_numpy(dense),
            torch.from_numpy(codes),
            torch.from_numpy(lengths),
            torch.from_numpy(self.sequences[chosen]),
            target,
            begins=first == 0,
        )


class Forecasts:
    """Forecasting windows of a table: look-back, known future and the truth where there is one.

    `scaled` maps row indices and a mask to scaled targets [B, T, C] with NaN where missing or masked out.
    `known` encodes the columns whose future is known (None when there are none).
    """

    def __init__(
        self,
        encoded: Encoded,
        known: Encoded | None,
        windows: Windows,
        lookback: int,
        horizon: int,
        scaled: Callable[[np.ndarray, np.ndarray], np.ndarray],
    ) -> None:
        self.encoded, self.known, self.windows, self.scaled = encoded, known, windows, scaled
        self.lookback, self.horizon = lookback, horizon
        self.lengths = np.broadcast_to(lookback, len(windows))

    def make(self, chosen: np.ndarray) -> Batch:
        w = self.windows.at(chosen)
        length = np.minimum(w.origin - w.first, self.lookback)
        origin, first, last = w.origin[:, None], w.first[:, None], w.last[:, None]
        # A short look-back starts at its first real row, so that its padding is at the end as everywhere else.
        back = origin - length[:, None] + np.arange(self.lookback)
        ahead = origin + np.arange(self.horizon)
        seen, future = (back < origin) & (back >= first), ahead < last
        dense, codes = self.encoded.gather(back, seen)
        known = self.known.gather(ahead, future) if self.known else (None, None)
        return Batch(
            torch.from_numpy(dense),
            torch.from_numpy(codes),
            torch.from_numpy(length),
            torch.from_numpy(chosen),
            target=torch.from_numpy(self.scaled(ahead, future)),
            history=torch.from_numpy(self.scaled(back, seen)),
            known_dense=None if known[0] is None else torch.from_numpy(known[0]),
            known_codes=None if known[1] is None else torch.from_numpy(known[1]),
        )
