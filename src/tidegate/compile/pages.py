"""Memory for large results: in huge pages where the system grants them on request."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

HUGE_PAGE = 2 << 20
ENOUGH = 4 * HUGE_PAGE


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return a new contiguous tensor of `shape`, in `like`'s dtype and device, holding anything."""
    return asked(like.new_empty(shape))


def asked(tensor: Tensor) -> Tensor:
    """Return a new tensor that nothing was written to, with huge pages asked for where it is large.

    A fresh tensor of many megabytes costs far more to touch for the first time, page by page, than to fill: Linux
    gives whole huge pages instead to who asks, which touches 500 times fewer.
    """
    advise = _advise() if tensor.nbytes >= ENOUGH else None
    if advise:
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        # It is advice: where it is refused, small pages serve.
        advise(begin, end - begin, mmap.MADV_HUGEPAGE)
    return tensor


@cache
def _advise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux" or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
