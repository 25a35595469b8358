"""Splits by id and by time never leak (B6)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data.split import cut_by_fraction, split_by_id
from tidegate.errors import ConfigError


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 5))
def test_parts_are_disjoint_and_complete(count: int, fraction: float, seed: int) -> None:
    train, valid = split_by_id(count, fraction, seed)
    assert sorted([*train, *valid]) == list(range(count))
    assert len(train) >= 1
    assert len(valid) >= 1


@given(st.lists(st.integers(0, 4), min_size=2, max_size=200), st.integers(0, 3))
def test_every_class_with_two_members_is_trained_on(groups: list[int], seed: int) -> None:
    array = np.array(groups)
    train, valid = split_by_id(len(array), 0.3, seed, array)
    assert sorted([*train, *valid]) == list(range(len(array)))
    for g in np.unique(array):
        if (array == g).sum() >= 2:
            assert (array[train] == g).any()


@pytest.mark.parametrize(
    ("sizes", "fraction", "held"),
    [([2] * 100, 0.15, 30), ([90, 4], 0.15, 14), ([8, 4], 0.25, 3), ([1, 1, 1], 0.3, 1), ([2, 2], 0.9, 2)],
)
def test_the_held_out_part_is_of_the_size_asked_for(sizes: list[int], fraction: float, held: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    train, valid = split_by_id(len(groups), fraction, 0, groups)
    assert len(valid) == held
    if max(sizes) > 1:
        assert set(groups[train]) == set(groups)
    shares = np.bincount(groups[valid], minlength=len(sizes))
    assert (np.abs(shares - np.array(sizes) * fraction) <= 1).all()


def test_which_small_classes_are_held_out_is_chance() -> None:
    groups = np.repeat(np.arange(100), 2)
    chosen = [set(groups[split_by_id(200, 0.15, seed, groups)[1]]) for seed in range(3)]
    assert chosen[0] != chosen[1] != chosen[2]


def test_one_sequence_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="at least 2 sequences, or texts; got 1"):
        split_by_id(1, 0.2, 0)


def test_cut_holds_out_the_end() -> None:
    assert cut_by_fraction(np.array([100, 10, 3]), 0.2, 4).tolist() == [80, 6, 3]
