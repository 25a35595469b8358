"""Arrays and frames with their targets as a table: what the estimators train on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import polars as pl

from tidegate.data.infer import TYPES
from tidegate.data.memory import memory_table
from tidegate.data.source import Source, open_source
from tidegate.data.table import ColumnInfo, Table, load_table
from tidegate.errors import DataError


@dataclass(frozen=True)
class Reader:
    """Reads X as a table: `id` and `time` of a long frame, and the types its columns are known to have."""

    id: str | None = None
    time: str | None = None
    types: Mapping[str, str] | None = None

    def like(self, table: Table) -> Reader:
        """Return a reader of tables with the column types of this one."""
        return Reader(self.id, self.time, {n: i.type for n, i in table.columns.items() if i.type in TYPES})

    def table(self, X: Any) -> Table:
        """Return X: an array [N, T, D] or [N, T], a list of [T_i, D], a frame of either, or a long or nested frame."""
        if isinstance(X, np.ma.MaskedArray | list | tuple):
            return load_table(open_source(_unmasked(X), name="X"))
        types = {name: type_ for name, type_ in (self.types or {}).items() if name != self.id}
        source = open_source(X, name="X", kinds=types, must_have=False)
        if source.lengths is not None or source.nested or self.id or self.time:
            return load_table(source, id=self.id, time=self.time)
        return load_table(open_source(_wide(source), name="X"))


def _unmasked(X: Any) -> Any:
    """Replace what is masked by NaN."""
    if isinstance(X, list | tuple):
        return [_unmasked(x) if isinstance(x, np.ma.MaskedArray) else x for x in X]
    return X.astype(np.float64).filled(np.nan)


def _wide(source: Source) -> np.ndarray:
    """Return a frame of numbers, a row a sequence and a column a step, as an array [N, T]."""
    for name, dtype in source.columns.items():
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise DataError(
                "reading the frame X",
                expected="numbers, a row a sequence and a column a step; list columns; or id= for a row a step",
                got=f"column {name!r} of {dtype}",
                hint="name the id and time of a long table when making the estimator, or use tg.fit",
            )
    return pl.concat(source.chunks()).cast(pl.Float64).to_numpy()


def is_name(y: Any) -> bool:
    """Whether y names columns of X instead of holding the targets."""
    return isinstance(y, str)


def sequence_table(X: Table, y: Any, *, per_step: bool = False) -> tuple[Table, tuple[str, ...]]:
    """Return the table X with the targets y in columns, and the names of those.

    y is the name of a column, or [N] or [N, C] per sequence, or, `per_step`, [N, T] or a list of [T_i].
    """
    if is_name(y):
        return X, (y,)
    lengths = np.diff(X.offsets)
    values = _per_step_values(y, lengths) if per_step else _per_sequence_values(y, lengths)
    names = ("y",) if values.shape[1] == 1 else tuple(f"y{i}" for i in range(values.shape[1]))
    columns = {n: (info, X.read(n, 0, X.rows)) for n, info in X.columns.items()}
    for i, name in enumerate(names):
        if name in columns:
            raise DataError(
                "reading y beside the frame X",
                expected=f"no column {name!r} in X, as y goes by that name",
                got="one",
                hint=f"fit(X, {name!r}) if it is the target, or rename it",
            )
        columns[name] = target_column(name, values[:, i], constant=not per_step)
    return (
        memory_table(
            X.name, X.ids, X.offsets, columns, id_name=X.id_name, time_name=X.time_name, notes=X.notes
        ),
        names,
    )  # fmt: skip


def read_targets(y: Any) -> np.ndarray:
    """Return y as an array [N] or [N, C], in the type it was given; [N, 1] becomes [N] with sklearn's warning."""
    from sklearn.exceptions import DataConversionWarning

    try:
        values = _labels(y)
    except ValueError as error:
        raise DataError(
            "reading y", expected="[N] or [N, C], one target per sequence", got=str(error), hint="give each as many"
        ) from None
    if values.ndim == 2 and values.shape[1] == 1:
        warnings.warn("y [N, 1] is taken as [N]: use y.ravel()", DataConversionWarning, stacklevel=4)
        return values.ravel()
    return values


def tags_of(y: Any) -> list[np.ndarray]:
    """Return [N, T] or a list of [T_i] as a list of arrays, None where a tag is masked."""
    return [_labels(v) for v in y]


def _labels(y: Any) -> np.ndarray:
    return np.array(y.astype(object).tolist(), dtype=object) if isinstance(y, np.ma.MaskedArray) else np.asarray(y)


def is_absent(values: np.ndarray) -> np.ndarray:
    """Return where labels are missing: NaN, None, NaT, or NA of pandas."""
    if values.dtype.kind == "f":
        return np.isnan(values)
    if values.dtype.kind != "O":
        return np.zeros(values.shape, dtype=bool)
    return np.array([v is None or type(v).__name__ in ("NAType", "NaTType") or bool(v != v) for v in values], bool)


def _per_sequence_values(y: Any, lengths: np.ndarray) -> np.ndarray:
    values = np.asarray(y)
    if values.ndim not in (1, 2) or len(values) != len(lengths):
        raise DataError(
            "reading y",
            expected=f"[{len(lengths)}] or [{len(lengths)}, C], one target per sequence",
            got=f"shape {list(values.shape)}",
            hint="check that X and y belong together",
        )
    absent = is_absent(values.ravel())
    if absent.any():
        row, _ = np.unravel_index(int(absent.argmax()), (len(values), max(1, values.size // len(values))))
        raise DataError(
            "reading y",
            expected="a target for every sequence",
            got=f"{int(absent.sum())} missing, first in row {row}",
            hint="leave those sequences out",
        )
    return np.repeat(values.reshape(len(lengths), -1), lengths, axis=0)


def _per_step_values(y: Any, lengths: np.ndarray) -> np.ndarray:
    rows = tags_of(y)
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
    absent = is_absent(values)
    missing, family = int(absent.sum()), _family(values, absent)
    if family == "text":
        levels, codes = np.unique(values[~absent].astype(str), return_inverse=True)
        every = np.full(len(values), -1, np.int32)
        every[~absent] = codes
        return ColumnInfo(name, "category", 1, tuple(levels.tolist()), missing, constant), every
    numbers = np.full(len(values), np.nan)
    numbers[~absent] = values[~absent].astype(np.float64)
    if np.isinf(numbers).any():
        raise DataError("reading y", expected="finite numbers", got=f"{numbers[np.isinf(numbers)][0]}", hint="clean y")
    return ColumnInfo(name, "boolean" if family == "boolean" else "number", 1, None, missing, constant), numbers


def _family(values: np.ndarray, absent: np.ndarray) -> str:
    """Return "boolean", "number" or "text"; Python objects must all be of one of them."""
    kinds = {"b": "boolean", **dict.fromkeys("iuf", "number"), **dict.fromkeys("UST", "text")}
    if values.dtype.kind in kinds:
        return kinds[values.dtype.kind]
    found = ""
    for row in np.flatnonzero(~absent) if values.dtype.kind == "O" else ():
        v = values[row]
        one = "boolean" if isinstance(v, bool | np.bool_) else "number" if isinstance(v, Real) else "text"
        if not isinstance(v, Real | str | np.bool_) or found not in ("", one):
            raise DataError(
                "reading y",
                expected=f"{found or 'number, boolean or text'} in every row",
                got=f"{v!r} of type {type(v).__name__} in row {row}",
                hint="y.astype(str)",
            )
        found = one
    if not found:
        raise DataError("reading y", expected="numbers, booleans or labels", got=f"dtype {values.dtype}", hint="astype")
    return found


@dataclass(frozen=True)
class SeriesList:
    """Series [T_i, C] each; `several` and `flat` say whether a list, and whether [T], was given."""

    rows: list[np.ndarray]
    several: bool
    flat: bool

    @cached_property
    def names(self) -> tuple[str, ...]:
        width = self.rows[0].shape[1]
        return ("y",) if width == 1 else tuple(f"y{i}" for i in range(width))

    def table(self, rows: list[np.ndarray] | None = None) -> Table:
        """Return the series, or `rows` of the same width, as a table with a target in each column."""
        rows = self.rows if rows is None else rows
        values = np.concatenate(rows)
        columns = {
            n: (ColumnInfo(n, "number", 1, None, int(np.isnan(values[:, i]).sum()), False), values[:, i])
            for i, n in enumerate(self.names)
        }
        offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])])
        return memory_table("series", list(range(len(rows))), offsets, columns)


def read_series(y: Any) -> SeriesList:
    """Read one series [T] or [T, C], or a list or tuple of series; a list of lists is a list of series."""
    doing, hint = "reading a series", "pass a list of arrays for several series, and tg.fit a table with times"
    several = isinstance(y, list | tuple) and len(y) > 0 and np.ndim(y[0]) > 0
    try:
        raw = [np.ma.filled(np.ma.asarray(v, dtype=np.float64), np.nan) for v in (y if several else [y])]
    except (TypeError, ValueError) as error:
        raise DataError(doing, expected="numbers", got=str(error), hint=hint) from None
    rows = [r[:, None] if r.ndim == 1 else r for r in raw]
    widths = {r.shape[1] if r.ndim == 2 and r.size else -1 for r in rows}
    if len(widths) != 1 or -1 in widths:
        raise DataError(
            doing,
            expected="[T] or [T, C], the same C in each",
            got=str([list(r.shape) for r in raw[:5]]),
            hint=hint,
        )
    for i, row in enumerate(rows):
        if np.isinf(row).any():
            raise DataError(
                doing,
                expected="finite numbers (NaN is missing)",
                got=f"infinite at step {int(np.argwhere(np.isinf(row))[0][0])} of series {i}",
                hint="clean the series",
            )
    return SeriesList(rows, several, raw[0].ndim == 1)
