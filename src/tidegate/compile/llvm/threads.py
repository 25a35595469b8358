"""Compiled functions on the OpenMP threads that torch already has."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import torch

# An address as a number: as a pointer it would take a quarter of a microsecond to hand over.
_Body = ctypes.CFUNCTYPE(None, ctypes.c_size_t)
# GOMP_parallel(function, argument, threads, flags)
_Parallel = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_uint, ctypes.c_uint)
_forked = False


def run(address: int, argument: int, threads: int) -> None:
    """Call the C function `void f(void *argument)` at `address` on `threads` threads at once; return when all have.

    Fewer threads may come: one where torch has no OpenMP runtime with GOMP_parallel, and one in a process that was
    forked, where the runtime's threads do not exist and waiting for them would never end. Python's lock is free
    meanwhile. Give `torch.get_num_threads()` or 1, and let threads find no work: GNU's runtime ends and starts
    threads whenever the number changes, which costs hundreds of microseconds.
    """
    parallel = _parallel() if threads > 1 and not _forked else None
    if parallel:
        parallel(address, argument, threads, 0)
    else:
        function(address)(argument)


@lru_cache(maxsize=256)
def function(address: int) -> Callable[[int], None]:
    """Return the C function `void f(void *argument)` at `address`, to be called on this thread."""
    return _Body(address)


@cache
def _parallel() -> Callable[[int, int, int, int], None] | None:
    """`GOMP_parallel` of the runtime that torch is linked with, whatever other runtimes this process holds."""
    name = {"darwin": "libtorch_cpu.dylib", "win32": "torch_cpu.dll"}.get(sys.platform, "libtorch_cpu.so")
    library = Path(torch.__file__).parent / "lib" / name
    if not library.exists():
        return None
    # A symbol is looked up in the library and then in those it depends on.
    address = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    return _Parallel(ctypes.cast(address, ctypes.c_void_p).value or 0) if address else None


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
