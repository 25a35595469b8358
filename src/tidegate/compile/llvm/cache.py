"""Object code kept on disk between processes: named by digest, checked before use, bounded in size."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
import sys
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

from tidegate.files import write_atomically

FOLDER = "TIDEGATE_CACHE"
LIMIT_BYTES = 256 * 2**20

_HEADER = struct.Struct("<8sIQ32s")  # magic, version, length, SHA-256 of name and content
_MAGIC, _VERSION = b"TIDEGATE", 1
_SUFFIX = ".object"
_OURS = re.compile(rf"\.?[0-9a-f]{{64}}{re.escape(_SUFFIX)}(\..*)?")


class DiskCache:
    """A folder of checked entries; the least recently used leave when it holds more than `limit_bytes`.

    Safe for concurrent processes: an entry appears whole or not at all, and may vanish at any time. A folder that
    cannot be written is read; nothing here raises for the state of the disk.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def load(self, digest: str) -> bytes | None:
        """Return the content stored under `digest`, or None; an entry that is not as it was written is removed."""
        path = self._path(digest)
        try:
            entry = path.read_bytes()
        except OSError:
            return None
        content = _content(digest, entry)
        with suppress(OSError):
            if content is None:
                path.unlink()
            else:
                os.utime(path)
        return content

    def store(self, digest: str, content: bytes) -> None:
        """Keep `content` under `digest` (64 hexadecimal digits), then make room."""
        entry = _HEADER.pack(_MAGIC, _VERSION, len(content), _seal(digest, content)) + content
        try:
            write_atomically(self._path(digest), entry)
            self._evict()
        except OSError as error:
            _warn_once(f"{self.folder}: {error.strerror}")

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}{_SUFFIX}"

    def _evict(self) -> None:
        entries = []
        with os.scandir(self.folder) as found:
            for item in found:
                # Another process may remove it first.
                with suppress(FileNotFoundError):
                    if _OURS.fullmatch(item.name):
                        status = item.stat()
                        entries.append((status.st_mtime_ns, status.st_size, item.path))
        excess = sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                return
            excess -= size
            with suppress(FileNotFoundError):
                os.unlink(path)


def disk_cache() -> DiskCache | None:
    """Return the cache in the folder that TIDEGATE_CACHE names, or else in the platform's folder for caches.

    None where TIDEGATE_CACHE is set to nothing; None with one warning where the folder cannot be made, or where
    others could write into it: its content is executed.
    """
    return _opened(os.environ.get(FOLDER))


@cache
def _opened(named: str | None) -> DiskCache | None:
    if named == "":
        return None
    try:
        folder = (Path(named).expanduser() if named else _platform_folder()) / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        danger = _danger(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        danger = str(error)
    if danger:
        _warn_once(danger)
        return None
    return DiskCache(folder)


def _platform_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "tidegate" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tidegate"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidegate"


def _danger(folder: Path) -> str:
    """Why another user could put code into `folder`, or nothing. On Windows the profile's own rights decide."""
    if os.name != "posix":
        return ""
    status = folder.stat()
    if status.st_uid != os.geteuid():
        return f"{folder} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"{folder} can be written by others"
    return ""


def _content(digest: str, entry: bytes) -> bytes | None:
    if len(entry) < _HEADER.size:
        return None
    magic, version, length, seal = _HEADER.unpack_from(entry)
    content = entry[_HEADER.size :]
    whole = (magic, version, length) == (_MAGIC, _VERSION, len(content))
    return content if whole and seal == _seal(digest, content) else None


def _seal(digest: str, content: bytes) -> bytes:
    return hashlib.sha256(digest.encode() + content).digest()


@cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"compiled code is not kept on disk: {reason}; try: {FOLDER}=<a folder of yours>", RuntimeWarning, stacklevel=4
    )
