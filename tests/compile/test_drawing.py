"""Ones at a rate: as many as asked for, told by the seed alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from tidegate.compile import drawing
from tidegate.compile.llvm.bernoulli import PIECE

MASK = (1 << 64) - 1


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def split_mix(seed: int, number: int) -> int:
    """Return 64 bits of SplitMix64 (Steele, Lea & Flood 2014, figure 18), in whole numbers."""
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@pytest.mark.parametrize("shape", [(0,), (1,), (15,), (3, 7), (2, PIECE), (PIECE + 5,)])
def test_numbers_are_those_of_the_generator(shape: tuple[int, ...]) -> None:
    torch.manual_seed(3)
    seed = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)) & MASK
    torch.manual_seed(3)
    found = drawing.draw(0.3, 0.7, shape)
    assert found.shape == shape
    assert found.dtype == torch.float32
    limit = round(0.3 * 2**32)
    count = math.prod(shape)
    bits = [split_mix(seed, number) for number in range(-(-count // 2))]
    expected = [0.7 * (half < limit) for each in bits for half in (each & (2**32 - 1), each >> 32)]
    assert found.flatten().tolist() == torch.tensor(expected[:count]).tolist()


def test_threads_do_not_change_them() -> None:
    drawn = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(5)
        drawn.append([drawing.draw(0.5, 1.0, (7 * PIECE + 3,)), drawing.draw(0.5, 1.0, (5, 5))])
    assert all(torch.equal(*pair) for pair in zip(*drawn, strict=True))
    assert not torch.equal(drawn[0][0][:25], drawn[0][1].flatten())


@pytest.mark.parametrize("rate", [1e-4, 0.05, 0.5, 0.9, 1 - 1e-4])
def test_there_are_as_many_as_asked_for(rate: float) -> None:
    torch.manual_seed(0)
    count = 1 << 22
    mean = float(drawing.draw(rate, 1.0, (count,)).double().mean())
    assert abs(mean - rate) < 5 * math.sqrt(rate * (1 - rate) / count)


def test_neighbours_know_nothing_of_each_other() -> None:
    torch.manual_seed(0)
    drawn = drawing.draw(0.5, 1.0, (1 << 20,)).double().mul(2).sub(1)
    other = drawing.draw(0.5, 1.0, (1 << 20,)).double().mul(2).sub(1)
    pairs = [(drawn[:-lag], drawn[lag:]) for lag in (1, 2, 3, 8, 16, 17, 1000, PIECE)]
    for a, b in [*pairs, (drawn, other)]:
        assert abs(float((a * b).mean())) < 5 / math.sqrt(len(a))
