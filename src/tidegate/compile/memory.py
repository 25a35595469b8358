"""Memory that kernels write to: what is handed out, and what one run leaves to the next.

To ask the system for memory anew, page by page, takes up to half of a run: what kernels need for themselves, and what
they hand out that is large, is kept when nobody holds it any more, up to `MOST_BYTES` in the process.
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.compile import pages

LINE = 64
"""Bytes: where vectors and tiles of the matrix unit begin."""

MOST_BYTES = 1 << 30
"""So much is kept when nobody works in it."""

SMALL_BYTES = 1 << 21
"""Less than this costs less to ask for than to lease."""


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


# By how many bytes they have. Memory comes back on whatever thread lets go of it last, in the middle of whatever that
# does: nothing is locked, and a deque gives each piece to one taker.
_free: dict[int, deque[Tensor]] = {}


def leased(*shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
    """Return what `blank` does; the memory serves another when no tensor, and no array of one, holds it any more.

    As with any tensor made of an array, torch does not give its storage another size.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL_BYTES:
        return blank(*shape, dtype=dtype, zero=zero)
    memory = _taken(_rounded(size))
    array = memory.numpy()
    lent = _Lent(array, _returned)
    lent.memory = memory
    _lent[id(lent)] = lent
    # Views of an array hold the array itself, and so does a tensor made of one.
    tensor = torch.from_numpy(array[:size].view(str(dtype).removeprefix("torch.")).reshape(shape))
    return tensor.zero_() if zero else tensor


class _Lent(weakref.ref[Any]):
    """An array that tensors are made of, and its memory, which comes back when the array is gone."""

    __slots__ = ("memory",)
    memory: Tensor


_lent: dict[int, _Lent] = {}


def _returned(lent: _Lent) -> None:
    _give(_lent.pop(id(lent)).memory)


def borrowed(size: int) -> Tensor:
    """Return at least so many bytes to work in until they are `given_back`: sooner done than to lease them."""
    rounded = 1 << max(size - 1, 0).bit_length() if size < SMALL_BYTES else _rounded(size)
    return _taken(rounded)


def given_back(memory: Tensor) -> None:
    """Take back what was borrowed; nobody else may hold it."""
    if memory.nbytes >= SMALL_BYTES or MOST_BYTES < SMALL_BYTES:
        _give(memory)
    else:  # of each size there are as many as were ever worked in at once
        _free.setdefault(memory.nbytes, deque()).append(memory)


def _rounded(size: int) -> int:
    """Return a size for several alike: at most a quarter more."""
    step = 1 << max(0, size.bit_length() - 3)
    return -(-size // step) * step


def _taken(size: int) -> Tensor:
    try:
        return _free[size].pop()
    except (KeyError, IndexError):
        # What is made for a run without gradients may come to serve one with them.
        with torch.inference_mode(False):
            return fresh((size,), torch.uint8)


def _give(memory: Tensor) -> None:
    _free.setdefault(memory.nbytes, deque()).append(memory)
    for pieces in list(_free.values()):
        while pieces and sum(size * len(each) for size, each in list(_free.items())) > MOST_BYTES:
            try:
                pieces.popleft()
            except IndexError:  # another thread took it
                break
