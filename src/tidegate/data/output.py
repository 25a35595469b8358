"""Predictions as files: CSV, Parquet or JSON lines, by the file's ending."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tidegate.errors import ConfigError

_WRITERS: dict[str, Callable[[pl.DataFrame, str], object]] = {
    ".csv": lambda frame, path: frame.write_csv(path),
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}


def check_output(path: Path, source: Path | None = None) -> None:
    """Raise before any work is done unless predictions can be written to `path`, which is not the `source`."""
    doing = f"writing predictions to {path}"
    if path.suffix not in _WRITERS:
        raise ConfigError(
            doing,
            expected=f"a file ending in {', '.join(_WRITERS)}",
            got=repr(path.suffix),
            hint="-o out.csv",
        )
    check_place(doing, path, source)


def check_place(doing: str, path: Path, *sources: Any) -> None:
    """Raise unless a file can be written to `path`, and none of the `sources` that are paths is that file."""
    try:
        if path.is_dir() or not path.parent.is_dir():
            raise ConfigError(
                doing,
                expected="a file in a folder that exists",
                got="a folder" if path.is_dir() else f"no folder {path.parent}",
                hint="create the folder first",
            )
        for source in (Path(each) for each in sources if isinstance(each, str | os.PathLike)):
            if source.exists() and path.exists() and path.samefile(source):
                raise ConfigError(
                    doing,
                    expected="another file than the data",
                    got=f"the data itself, {source}",
                    hint=f"another name, as predictions{path.suffix}",
                )
        _scratch(path).unlink()
    except OSError as error:
        raise _unwritable(doing, error) from None


def write_predictions(frame: pl.DataFrame, path: Path) -> None:
    """Write the frame beside `path`, then move it there: a reader never sees half of it."""
    check_output(path)
    scratch = _scratch(path)
    try:
        _WRITERS[path.suffix](frame, str(scratch))
        scratch.chmod(0o644)
        scratch.replace(path)
    except OSError as error:
        raise _unwritable(f"writing predictions to {path}", error) from None
    finally:
        scratch.unlink(missing_ok=True)


def _scratch(path: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    return Path(name)


def _unwritable(doing: str, error: OSError) -> ConfigError:
    return ConfigError(
        doing,
        expected="a place that can be written",
        got=error.strerror or str(error),
        hint="-o a file in a folder of yours, on a disk with space",
    )
