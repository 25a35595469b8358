"""Memory that kernels write to: what is handed out, and workspaces that the next run takes over."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from tidegate.compile import pages

LINE = 64
"""Bytes: where vectors and tiles of the matrix unit begin."""

MOST_KEPT, MOST_BYTES = 4, 64 << 20
"""So many workspaces stay when nobody works in them, and none larger than this."""

SMALL_BYTES = 1 << 18
"""Less than this costs nothing to ask for."""

_free: list[Tensor] = []


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return memory that may hold anything; tests have it hold NaN."""
    return pages.asked(torch.empty(shape, dtype=dtype, device="cpu"))


def blank(*shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
    """Return memory for a kernel to write; what it does not write is never read, unless it must be `zero`."""
    return pages.asked(torch.empty(shape, dtype=dtype, device="cpu")).zero_() if zero else fresh(shape, dtype)


@lru_cache(maxsize=64)
def zeros(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return zeros that nobody writes to."""
    with torch.inference_mode(False):
        return torch.zeros(rows, width, dtype=dtype, device="cpu")


def aligned(memory: Tensor) -> int:
    """Return the first address of a line in `memory`."""
    return -(-memory.data_ptr() // LINE) * LINE


@contextmanager
def workspace(size: int) -> Iterator[Tensor]:
    """Lend at least `size` bytes, which may hold anything, to one run.

    To ask the system for them anew each time, page by page, takes up to a fifth of a short training run.
    """
    memory = taken(size)
    try:
        yield memory
    finally:
        if memory.nbytes <= MOST_BYTES and len(_free) < MOST_KEPT:
            _free.append(memory)


@contextmanager
def lent(*shape: int, dtype: torch.dtype, zero: bool) -> Iterator[Tensor]:
    """Lend what `blank` returns, to one run: from a workspace where it is large."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL_BYTES:
        yield blank(*shape, dtype=dtype, zero=zero)
        return
    with workspace(size) as memory:
        tensor = memory[:size].view(dtype).view(shape)
        yield tensor.zero_() if zero else tensor


def taken(size: int) -> Tensor:
    """Return a free workspace that is large enough, or a new one; one that is too small is let go."""
    while _free:
        try:
            memory = _free.pop()
        except IndexError:  # another thread took the last one
            break
        if memory.nbytes >= size:
            return memory
    return fresh((size,), torch.uint8)
