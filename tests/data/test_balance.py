"""Balanced sampling: equally many of each group, reproducible, resumable (B3, B10)."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.data.balance import balanced_count
from tidegate.data.loader import batch_order


@settings(max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 20), st.integers(0, 30))
def test_a_balanced_epoch_has_equally_many_of_each_group_and_can_be_taken_up(
    sizes: list[int], batch_size: int, start: int
) -> None:
    ends = np.cumsum(sizes)
    groups = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    lengths = np.random.default_rng(0).integers(1, 9, ends[-1])
    batches = list(batch_order(lengths, batch_size, 7, 3, groups=groups))
    order = np.concatenate(batches)
    each = -(-int(ends[-1]) // len(sizes))
    assert len(order) == balanced_count(groups) == each * len(sizes)
    for members in groups:
        times = np.bincount(order[np.isin(order, members)], minlength=ends[-1])[members]
        assert times.sum() == each
        assert times.max() - times.min() <= 1, "none comes again before all have come"
    again = [b.tolist() for b in batch_order(lengths, batch_size, 7, 3, start, groups=groups)]
    assert again == [b.tolist() for b in batches[start:]]


def test_balanced_epochs_differ() -> None:
    groups = [np.arange(90), np.arange(90, 100)]
    first, second = (np.concatenate(list(batch_order(np.full(100, 5), 10, 0, e, groups=groups))) for e in (0, 1))
    assert set(first[first < 90].tolist()) != set(second[second < 90].tolist())
    assert (first != second).any()
