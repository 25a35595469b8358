"""Files that are whole or not there, and as they were written: atomic writes, digests, sealed JSON."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tidegate.errors import ArtifactError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, flush to the disk, then move into place: a reader sees the old content or the new."""
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        # An interruption may come when it has just been moved.
        Path(scratch).unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut. Windows cannot open folders, and needs no such call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(content: bytes) -> str:
    """Return the SHA-256 digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file of any size in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sealed(path: Path, body: dict[str, Any]) -> None:
    """Write an object as JSON together with its checksum."""
    sealed = {**body, "checksum": sha256(canonical_json(body))}
    write_atomically(path, json.dumps(sealed, indent=1, ensure_ascii=False).encode())


def read_sealed(path: Path, doing: str, hint: str) -> dict[str, Any]:
    """Return what `write_sealed` wrote; an `ArtifactError` names a file that is missing, damaged or altered."""
    expected = f"{path.name} as it was written"
    content = read_bytes(path, doing, hint)
    try:
        body = json.loads(content)
        checksum = body.pop("checksum")
        same = sha256(canonical_json(body)) == checksum
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactError(doing, expected=expected, got=f"unreadable JSON ({error})", hint=hint) from None
    if not same:
        raise ArtifactError(doing, expected=expected, got="other content: its checksum differs", hint=hint)
    return dict(body)


def read_bytes(path: Path, doing: str, hint: str) -> bytes:
    """Return a file's content, or raise an `ArtifactError` that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            doing, expected=f"a readable {path.name}", got=error.strerror or str(error), hint=hint
        ) from None
