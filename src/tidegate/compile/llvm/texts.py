"""What was written once, intermediate representation and what belongs to it, in memory and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tidegate.compile.llvm.cache import disk_cache
from tidegate.compile.llvm.engine import MAKERS

_known: dict[str, str] = {}


def written(what: str, write: Callable[[], str]) -> str:
    """Return what `write` returns, from memory or disk where `what` was written before by this version of the code."""
    digest = hashlib.sha256(f"{_writer()}\n{what}".encode()).hexdigest()
    found = _known.get(digest) or _from_disk(digest)
    if found is None:
        found = write()
        disk = disk_cache()
        if disk:
            disk.store(digest, found.encode())
    _known[digest] = found
    return found


@cache
def _writer() -> str:
    """Return what tells this version of the code that writes kernels from every other."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join([MAKERS.encode(), *(source.read_bytes() for source in sources)])).hexdigest()


def _from_disk(digest: str) -> str | None:
    disk = disk_cache()
    found = disk.load(digest) if disk else None
    return None if found is None else found.decode()
