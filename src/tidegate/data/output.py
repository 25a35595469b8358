"""Predictions as files: CSV, Parquet or JSON lines, by the file's ending."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from tidegate.errors import ConfigError

_WRITERS: dict[str, Callable[[pl.DataFrame, str], object]] = {
    ".csv": lambda frame, path: frame.write_csv(path),
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}


def check_output(path: Path) -> None:
    """Raise before any work is done unless predictions can be written to `path`."""
    doing = f"writing predictions to {path}"
    if path.suffix not in _WRITERS:
        raise ConfigError(
            doing,
            expected=f"a file ending in {', '.join(_WRITERS)}",
            got=repr(path.suffix),
            hint="-o out.csv",
        )
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            doing,
            expected="a file in a folder that exists",
            got="a folder" if path.is_dir() else f"no folder {path.parent}",
            hint="create the folder first",
        )


def write_predictions(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame beside `path`, then move it there: a reader never sees half of it."""
    check_output(path)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        _WRITERS[path.suffix](frame, scratch)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
