"""Arrays with their targets as a table: what the estimators train on."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.data.memory import memory_table
from tidegate.data.source import open_source
from tidegate.data.table import ColumnInfo, Table, load_table
from tidegate.errors import DataError


def sequence_table(X: Any, y: Any = None, *, per_step: bool = False) -> tuple[Table, tuple[str, ...]]:
    """Return X ([N, T, D], [N, T] or a list of [T_i, D]) as a table, with y in columns, and the names of those.

    y is [N] or [N, C] per sequence, or, `per_step`, [N, T] or a list of [T_i].
    """
    table = load_table(open_source(X, name="X"))
    if y is None:
        return table, ()
    lengths = np.diff(table.offsets)
    values = _per_step_values(y, lengths) if per_step else _per_sequence_values(y, lengths)
    names = ("y",) if values.shape[1] == 1 else tuple(f"y{i}" for i in range(values.shape[1]))
    columns = {n: (info, table.read(n, 0, int(table.offsets[-1]))) for n, info in table.columns.items()}
    for i, name in enumerate(names):
        columns[name] = target_column(name, values[:, i], constant=not per_step)
    return memory_table("X", table.ids, table.offsets, columns, notes=table.notes), names


def _per_sequence_values(y: Any, lengths: np.ndarray) -> np.ndarray:
    values = np.asarray(y)
    if values.ndim not in (1, 2) or len(values) != len(lengths):
        raise DataError(
            "reading y",
            expected=f"[{len(lengths)}] or [{len(lengths)}, C], one target per sequence",
            got=f"shape {list(values.shape)}",
            hint="check that X and y belong together",
        )
    if (lengths == 0).any():
        raise DataError(
            "reading X",
            expected="at least one step in every sequence",
            got=f"none in sequence {int(np.flatnonzero(lengths == 0)[0])}",
            hint="leave it out",
        )
    return np.repeat(values.reshape(len(lengths), -1), lengths, axis=0)


def _per_step_values(y: Any, lengths: np.ndarray) -> np.ndarray:
    rows = [np.asarray(v) for v in y]
    if len(rows) != len(lengths):
        raise DataError(
            "reading y",
            expected=f"{len(lengths)} sequences of tags",
            got=str(len(rows)),
            hint="check that X and y belong together",
        )
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        if row.shape != (n,):
            raise DataError(
                "reading y",
                expected=f"{n} tags for sequence {i}",
                got=f"shape {list(row.shape)}",
                hint="one tag a step",
            )
    return np.concatenate(rows)[:, None]


def target_column(name: str, values: np.ndarray, *, constant: bool) -> tuple[ColumnInfo, np.ndarray]:
    """Return a column of labels or numbers [n] as a table holds it."""
    if values.dtype.kind == "b":
        return ColumnInfo(name, "boolean", 1, None, 0, constant), values.astype(np.float64)
    if values.dtype.kind in "iuf":
        numbers = values.astype(np.float64)
        if np.isinf(numbers).any():
            raise DataError(
                "reading y", expected="finite numbers", got=f"{numbers[np.isinf(numbers)][0]}", hint="clean y"
            )
        return ColumnInfo(name, "number", 1, None, int(np.isnan(numbers).sum()), constant), numbers
    if values.dtype.kind not in "UOST":
        raise DataError(
            "reading y",
            expected="numbers, booleans or labels",
            got=f"dtype {values.dtype}",
            hint="y.astype(str)",
        )
    levels, codes = np.unique(values.astype(str), return_inverse=True)
    return ColumnInfo(name, "category", 1, tuple(levels.tolist()), 0, constant), codes.astype(np.int32)


def series_table(y: Any) -> tuple[Table, tuple[str, ...]]:
    """Return one series [T] or [T, C], or a list of series, as a table, and the names of its target columns."""
    several = isinstance(y, list | tuple) and len(y) > 0 and np.ndim(y[0]) > 0
    rows = [np.asarray(v, dtype=np.float64) for v in (y if several else [y])]
    rows = [r[:, None] if r.ndim == 1 else r for r in rows]
    widths = {r.shape[1] if r.ndim == 2 else -1 for r in rows}
    if len(widths) != 1 or -1 in widths:
        raise DataError(
            "reading a series",
            expected="[T] or [T, C], the same C in each",
            got=str([list(r.shape) for r in rows[:5]]),
            hint="pass a list of arrays for several series",
        )
    values = np.concatenate(rows)
    if np.isinf(values).any():
        raise DataError(
            "reading a series",
            expected="finite numbers (NaN is missing)",
            got=f"infinite at step {int(np.argwhere(np.isinf(values))[0][0])}",
            hint="clean the series",
        )
    names = ("y",) if values.shape[1] == 1 else tuple(f"y{i}" for i in range(values.shape[1]))
    columns = {
        n: (ColumnInfo(n, "number", 1, None, int(np.isnan(values[:, i]).sum()), False), values[:, i])
        for i, n in enumerate(names)
    }
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
    return memory_table("series", list(range(len(rows))), offsets, columns), names
