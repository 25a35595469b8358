"""Arrays as tables: [N, T, D], [N, T], or a list of [T_i, D], one vector column `x`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from tidegate.data.raw import Chunk, Raw
from tidegate.errors import DataError

_HINT = "pass an array [N, T, D], or a list of arrays [T, D] with one D"


def read_arrays(data: Any, name: str) -> Raw:
    """Return the steps of all sequences, one below the other, as column `x` of width D."""
    sequences = list(data) if isinstance(data, list | tuple) else _whole(data, name)
    parts = [_sequence(item, i, name) for i, item in enumerate(sequences)]
    if not parts:
        raise DataError(f"reading {name}", expected="at least one sequence", got="none (0 sequences)", hint=_HINT)
    width = parts[0].shape[1]
    for i, part in enumerate(parts):
        if part.shape[1] != width:
            raise DataError(
                f"reading {name}",
                expected=f"{width} values a step, as in sequence 0",
                got=f"{part.shape[1]} in sequence {i} of shape {list(part.shape)}",
                hint=_HINT,
            )
    steps = np.concatenate(parts)
    frame = pl.DataFrame({"x": steps[:, 0] if width == 1 else steps})

    def chunks(columns: Sequence[str]) -> Iterator[Chunk]:
        yield Chunk(frame.select(columns), 0)

    return Raw(
        name, dict(frame.schema), chunks, rows=frame.height, lengths=np.array([len(p) for p in parts], dtype=np.int64)
    )


def _whole(data: Any, name: str) -> list[np.ndarray]:
    array = np.asarray(data)
    if array.ndim not in (2, 3):
        raise DataError(
            f"reading {name}",
            expected="an array [N, T, D] or [N, T]",
            got=f"shape {list(array.shape)}, dtype {array.dtype}",
            hint=_HINT,
        )
    return list(array)


def _sequence(item: Any, index: int, name: str) -> np.ndarray:
    doing = f"reading sequence {index} of {name}"
    try:
        array = np.asarray(item)
    except ValueError as error:
        raise DataError(doing, expected="an array [T, D]", got=str(error), hint=_HINT) from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            doing, expected="real numbers", got=f"dtype {array.dtype}", hint="convert it with astype(float)"
        )
    if array.ndim not in (1, 2):
        raise DataError(doing, expected="shape [T, D] or [T]", got=f"shape {list(array.shape)}", hint=_HINT)
    if not array.size:
        raise DataError(
            doing,
            expected="at least one step of at least one value",
            got=f"shape {list(array.shape)}",
            hint="leave empty sequences out",
        )
    array = array.astype(np.float64).reshape(len(array), -1)
    if np.isinf(array).any():
        step, column = (int(k) for k in np.argwhere(np.isinf(array))[0])
        raise DataError(
            doing,
            expected="finite numbers",
            got=f"{array[step, column]} (non-finite) at step {step}, column {column}",
            hint="use NaN for a missing value",
        )
    return array
