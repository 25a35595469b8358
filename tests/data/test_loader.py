"""Batch order: complete, reproducible, resumable, of similar lengths (B10)."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data.loader import batch_order


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(1, 40), st.integers(0, 3))
def test_each_sequence_comes_once_an_epoch(lengths: list[int], batch_size: int, epoch: int) -> None:
    batches = list(batch_order(np.array(lengths), batch_size, 7, epoch))
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    again = list(batch_order(np.array(lengths), batch_size, 7, epoch))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_epochs_differ_and_evaluation_keeps_the_order() -> None:
    lengths = np.full(100, 5)
    first, second = (np.concatenate(list(batch_order(lengths, 10, 0, e))) for e in (0, 1))
    assert (first != second).any()
    assert (np.concatenate(list(batch_order(lengths, 10, None, 3))) == np.arange(100)).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=100), st.sampled_from([None, 5]), st.integers(0, 30))
def test_an_epoch_can_be_taken_up_at_any_step(lengths: list[int], seed: int | None, start: int) -> None:
    whole = [b.tolist() for b in batch_order(np.array(lengths), 4, seed, 2)]
    assert [b.tolist() for b in batch_order(np.array(lengths), 4, seed, 2, start)] == whole[start:]


def test_bucketing_saves_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 5000)
    padded = sum(len(b) * lengths[b].max() for b in batch_order(lengths, 32, 0, 0))
    plain = np.random.default_rng(1).permutation(5000)
    unsorted = sum(32 * lengths[plain[i : i + 32]].max() for i in range(0, 5000, 32))
    assert padded < 1.1 * lengths.sum()
    assert unsorted > 1.7 * lengths.sum()


def test_of_many_windows_an_epoch_takes_some_and_every_epoch_others() -> None:
    lengths = np.full(1000, 5)
    first, second = (np.concatenate(list(batch_order(lengths, 32, 0, e, most=100))) for e in (0, 1))
    assert len(set(first.tolist())) == 100
    assert len(set(first.tolist()) & set(second.tolist())) < 50
    spread = np.concatenate(list(batch_order(lengths, 32, None, 0, most=100)))
    assert spread.tolist() == list(range(0, 1000, 10))
    assert len(np.concatenate(list(batch_order(lengths, 32, 0, 0, most=2000)))) == 1000
