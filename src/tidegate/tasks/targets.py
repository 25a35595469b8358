"""Targets of a table as tensors: class indices, tags per step, scaled numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tidegate.data.batch import IGNORED
from tidegate.data.features import Segments, chunks, is_missing
from tidegate.data.infer import TRUE_WORDS
from tidegate.data.kinds import Number
from tidegate.data.schema import check_columns, first_values
from tidegate.data.table import Table
from tidegate.errors import DataError
from tidegate.tasks.base import Classes


def find_classes(table: Table, name: str) -> Classes:
    """Return the classes of a target column in a stable order: sorted labels or numbers; of booleans false, then true.

    Booleans that text spelled in words keep the words.
    """
    info = table.columns[name]
    doing = f"reading classes of {name!r} in {table.name}"
    if info.type == "boolean":
        names = info.words or (False, True)
        classes: Classes = tuple(names[int(v)] for v in np.unique(_read_all(table, name)) if not np.isnan(v))
    elif info.type == "category":
        used = np.unique(_read_all(table, name))
        classes = tuple(sorted((info.levels or ())[i] for i in used if i >= 0))
    else:
        values = np.unique(_read_all(table, name))
        values = values[~np.isnan(values)]
        whole = bool((values == np.round(values)).all())
        classes = tuple(int(v) if whole else float(v) for v in values)
    if len(classes) < 2:
        raise DataError(
            doing,
            expected="at least 2 classes",
            got=f"{len(classes)}: {list(classes)}",
            hint="check the target column, or that the file holds more than one class",
        )
    return classes


def count_classes(table: Table, name: str, classes: Classes, part: np.ndarray, *, by_step: bool) -> np.ndarray:
    """Return how often each class occurs in the sequences `part`, once in each or at its steps, int64 [C]."""
    if not by_step:
        found = sequence_classes(table, name, classes).numpy()[part]
        return np.bincount(found[found != IGNORED], minlength=len(classes))
    counts = np.zeros(len(classes), np.int64)
    for values in chunks(table, name, [(int(table.offsets[i]), int(table.offsets[i + 1])) for i in part]):
        found = class_indices(table, name, classes, values)
        counts += np.bincount(found[found != IGNORED], minlength=len(classes))
    return counts


def check_counts(table: Table, names: Sequence[str]) -> None:
    """Raise `DataError` unless every value of the columns is a whole number of at least 0, or missing."""
    check_columns(table, names, "targets")
    for name in names:
        for values in chunks(table, name, [(0, int(table.offsets[-1]))]):
            known = values[~np.isnan(values)]
            odd = known[(known < 0) | (known != np.round(known))]
            if odd.size:
                raise DataError(
                    f"reading counts {name!r} of {table.name}",
                    expected="whole numbers of at least 0",
                    got=f"{odd[0]:g}",
                    hint="loss='gaussian' for other numbers",
                )


def _read_all(table: Table, name: str) -> np.ndarray:
    rows = int(table.offsets[-1])
    if table.in_memory:
        return table.read(name, 0, rows)
    most = 1 << 22
    return np.concatenate([np.unique(table.read(name, at, min(at + most, rows))) for at in range(0, rows, most)])


def class_indices(table: Table, name: str, classes: Classes, values: np.ndarray) -> np.ndarray:
    """Return class indices int64 of raw `values`, `IGNORED` where missing; a class never trained on is an error."""
    info = table.columns[name]
    if info.type == "category":
        index = {c: i for i, c in enumerate(classes)}
        lookup = np.array([index.get(level, IGNORED - 1) for level in info.levels or ()] + [IGNORED], np.int64)
        found = lookup[values]
    else:
        order = np.array([float(c in TRUE_WORDS if isinstance(c, str) else c) for c in classes])
        where = np.searchsorted(order, values).clip(max=max(len(order) - 1, 0))
        matches = order[where] == values if order.size else np.zeros(len(values), bool)
        found = np.where(np.isnan(values), IGNORED, np.where(matches, where, IGNORED - 1)).astype(np.int64)
    if (found < IGNORED).any():
        bad = values[found < IGNORED][0]
        label = (info.levels or ())[int(bad)] if info.type == "category" else bad
        raise DataError(
            f"reading target {name!r} of {table.name}",
            expected=f"one of the classes trained on, {list(classes)}",
            got=repr(label),
            hint="leave those rows out, or train with them",
        )
    return found


def labelled(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return which sequences have a value of every target, booleans [N]."""
    check_columns(table, names, "targets")
    return np.all([~is_missing(table.columns[name], first_values(table, name)) for name in names], axis=0)


def sequence_classes(table: Table, name: str, classes: Classes) -> torch.Tensor:
    """Return one class index per sequence, int64 [N]; `IGNORED` where it has no label."""
    return torch.from_numpy(class_indices(table, name, classes, first_values(table, name)))


def sequence_numbers(table: Table, names: Sequence[str]) -> np.ndarray:
    """Return one number per sequence and target, float64 [N, C]; NaN where it is missing."""
    return np.stack([first_values(table, name) for name in names], axis=1)


StepTargets = Callable[[np.ndarray, np.ndarray], np.ndarray]


def step_classes(table: Table, name: str, classes: Classes) -> StepTargets:
    """Return a function from row indices and mask [B, T] to tags int64 [B, T], `IGNORED` where there is none."""

    def read(index: np.ndarray, mask: np.ndarray) -> np.ndarray:
        tags = np.full(mask.shape, IGNORED, np.int64)
        for b in range(len(mask)):
            rows = index[b][mask[b]]
            if rows.size:
                values = table.read(name, int(rows[0]), int(rows[-1]) + 1)
                tags[b, mask[b]] = class_indices(table, name, classes, values)
        return tags

    if not table.in_memory:
        return read
    every = class_indices(table, name, classes, table.read(name, 0, int(table.offsets[-1])))
    return lambda index, mask: np.where(mask, every[np.where(mask, index, 0)], IGNORED)


def fit_scaler(table: Table, name: str, segments: Segments) -> Number:
    """Learn the mean and standard deviation of a target on the training rows."""
    return Number.fit(name, 1, chunks(table, name, segments))


def scaled_steps(table: Table, scalers: tuple[Number, ...]) -> StepTargets:
    """Return a function from row indices and mask [B, T] to scaled targets float32 [B, T, C], NaN where missing."""
    names = [s.name for s in scalers]

    def scale(start: int, stop: int) -> np.ndarray:
        return np.concatenate(
            [s.scale(table.read(n, start, stop)) for n, s in zip(names, scalers, strict=True)], axis=1
        )

    def read(index: np.ndarray, mask: np.ndarray) -> np.ndarray:
        values = np.full((*mask.shape, len(names)), np.nan, np.float32)
        for b in range(len(mask)):
            rows = index[b][mask[b]]
            if rows.size:
                values[b, mask[b]] = scale(int(rows[0]), int(rows[-1]) + 1)
        return values

    if not table.in_memory:
        return read
    every = scale(0, int(table.offsets[-1]))
    return lambda index, mask: np.where(mask[..., None], every[np.where(mask, index, 0)], np.float32(np.nan))
