"""Memory that kernels write to: what is handed out, and what one run leaves to the next.

To ask the system for memory anew, page by page, takes up to a third of a training run: what kernels need for
themselves is kept when it is free again, up to `MOST_BYTES` in the process.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock

import torch
from torch import Tensor

from tidegate.compile import pages

LINE = 64
"""Bytes: where vectors and tiles of the matrix unit begin."""

MOST_BYTES = 512 << 20
"""So much is kept when nobody works in it."""

SMALL_BYTES = 1 << 18
"""Less than this costs nothing to ask for."""

LOOSE = 4
"""A piece of memory serves who needs at least a fourth of it."""


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


class _Kept:
    """Pieces of memory that nobody works in, [bytes] each."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []
        self._lock = Lock()
        # Where memory comes back to: whatever thread lets go of it last, in the middle of whatever it does.
        self._returned: deque[Tensor] = deque()

    def take(self, size: int) -> Tensor | None:
        """Return the smallest piece that is large enough and not far too large, if there is one."""
        with self._lock:
            while self._returned:
                self._free.append(self._returned.popleft())
            while sum(piece.nbytes for piece in self._free) > MOST_BYTES:
                del self._free[0]
            fitting = [piece for piece in self._free if size <= piece.nbytes <= LOOSE * size]
            best = min(fitting, key=lambda piece: piece.nbytes, default=None)
            if best is not None:
                self._free = [piece for piece in self._free if piece is not best]
            return best

    def give(self, piece: Tensor) -> None:
        if piece.nbytes <= MOST_BYTES:
            self._returned.append(piece)


_kept = _Kept()


@contextmanager
def workspace(size: int) -> Iterator[Tensor]:
    """Lend at least `size` bytes, which may hold anything, to one run."""
    if size < SMALL_BYTES:
        yield fresh((size,), torch.uint8)
        return
    memory = _taken(size)
    try:
        yield memory
    finally:
        _kept.give(memory)


@contextmanager
def lent(*shape: int, dtype: torch.dtype, zero: bool) -> Iterator[Tensor]:
    """Lend what `blank` returns, to one run."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL_BYTES:
        yield blank(*shape, dtype=dtype, zero=zero)
        return
    with workspace(size) as memory:
        yield _shaped(memory, shape, dtype, zero)


def leased(*shape: int, dtype: torch.dtype, zero: bool) -> Tensor:
    """Return what `blank` does; the memory comes back when no tensor holds it any more. For no user's hands."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL_BYTES:
        return blank(*shape, dtype=dtype, zero=zero)
    memory = _taken(size)
    array = memory.numpy()
    weakref.finalize(array, _kept.give, memory).atexit = False
    return _shaped(torch.from_numpy(array), shape, dtype, zero)


def _taken(size: int) -> Tensor:
    memory = _kept.take(size)
    if memory is not None:
        return memory
    # What is made for a run without gradients may come to serve one with them.
    with torch.inference_mode(False):
        return fresh((size,), torch.uint8)


def _shaped(memory: Tensor, shape: Sequence[int], dtype: torch.dtype, zero: bool) -> Tensor:
    tensor = memory[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
    return tensor.zero_() if zero else tensor
