"""Which column is what: roles inferred from a table, shown by `inspect`, and settable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from tidegate.data.encode import MOST_LEVELS
from tidegate.data.features import is_missing
from tidegate.data.table import ColumnInfo, Table
from tidegate.errors import ConfigError, DataError
from tidegate.registry import did_you_mean

_MANY_LEVELS, _MOST_CATEGORIES = 1000, 50_000
_MOST_INTEGER_CLASSES = 20
_BLOCK_ROWS = 1 << 16

AS_ASKED = "as asked"


class Schema(BaseModel):
    """Roles of the columns of one kind of table, and what is to be learnt.

    `inputs` are read at every step. `known` are those of them whose future is known when a forecast is made;
    columns constant within every sequence are among them. `types` is the type of every column that is used, as `kinds`
    of `open_source` takes it; `ignored` says why each other one is not. `reason` says in words why the task was chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None
    time: str | None
    targets: tuple[str, ...]
    task: str
    reason: str
    inputs: tuple[str, ...]
    known: tuple[str, ...]
    static: tuple[str, ...]
    types: dict[str, str]
    ignored: dict[str, str]


def check_columns(table: Table, names: Sequence[str], role: str) -> None:
    """Raise `ConfigError` unless every name is a column of the table."""
    for name in names:
        if name not in table.columns:
            raise ConfigError(
                f"reading {role} of {table.name}",
                expected="a column of the table",
                got=repr(name),
                hint=did_you_mean(name, table.columns),
            )


def infer_schema(
    table: Table,
    targets: Sequence[str],
    *,
    task: str | None = None,
    known: Sequence[str] = (),
    ignore: Sequence[str] = (),
    horizon: int | None = None,
) -> Schema:
    """Decide the role of every column; what the caller names is taken as it is.

    `ignore` are columns that were left out when the table was read: they are only written down.
    """
    _check_names(table, targets, known, ignore)
    infos = [table.columns[name] for name in targets]
    chosen, reason = (task, AS_ASKED) if task else _infer_task(table, infos, horizon)
    _check_task(table, infos, chosen)
    ignored = dict.fromkeys(ignore, "left out as asked")
    inputs = []
    for info in table.columns.values():
        why = _why_not(table, info)
        if info.name == table.id_name or info.name in targets:
            continue
        if why:
            ignored[info.name] = why
        else:
            inputs.append(info.name)
    static = tuple(n for n in inputs if _is_static(table.columns[n]) and len(table.ids) > 1)
    future = tuple(n for n in inputs if n in known or n in static or n == table.time_name)
    return Schema(
        id=table.id_name,
        time=table.time_name,
        targets=tuple(targets),
        task=chosen,
        reason=reason,
        inputs=tuple(inputs),
        known=future,
        static=static,
        ignored=ignored,
        types={name: table.columns[name].kind for name in (*inputs, *targets)},
    )


def _check_names(table: Table, targets: Sequence[str], known: Sequence[str], ignore: Sequence[str]) -> None:
    def refuse(expected: str, got: str, hint: str) -> ConfigError:
        return ConfigError(f"planning for {table.name}", expected=expected, got=got, hint=hint)

    if not targets:
        raise refuse("a target column", "none", f"target= one of {sorted(table.columns)}")
    for i, name in enumerate(targets):
        if name in (table.id_name, table.time_name):
            raise refuse("a target that is neither id nor time", repr(name), "name another column")
        if name in ignore:
            raise refuse("a target that is not ignored", f"{name!r} in target= and in ignore=", "take it from ignore=")
        if name in known:
            hint = "take it from known=: its future is what is learnt"
            raise refuse("known columns that are no targets", f"{name!r} in target= and in known=", hint)
        if name in targets[:i]:
            raise refuse("each target once", f"{name!r} twice", "name it once")
    for names, role in ((targets, "target"), (known, "known")):
        check_columns(table, names, role)


def _is_static(info: ColumnInfo) -> bool:
    # A value written in some rows only, such as an alarm, may not be known before its row.
    return info.constant and not info.patchy


def _why_not(table: Table, info: ColumnInfo) -> str | None:
    """Return why a column is no input, or None."""
    rows = int(table.offsets[-1])
    if info.name == table.time_name and info.type != "timestamp":
        return "a bare clock: its gaps are used, its value is not"
    if info.missing >= rows:
        return "every value is missing"
    if info.type == "text":
        return f"more than {MOST_LEVELS:,} different values: looks like free text or a key"
    if info.type == "category" and len(info.levels or ()) > max(_MANY_LEVELS, min(rows // 20, _MOST_CATEGORIES)):
        return f"{len(info.levels or ()):,} different values: looks like free text or a key"
    if info.type == "category" and len(info.levels or ()) <= 1 and not info.missing:
        return "one value throughout"
    return None


def _infer_task(table: Table, infos: list[ColumnInfo], horizon: int | None) -> tuple[str, str]:
    name = ", ".join(repr(i.name) for i in infos)
    steady = all(i.constant for i in infos) and len(table.ids) > 1
    if horizon is not None:
        return "forecasting", f"{name}, {horizon} steps ahead as asked"
    if len(infos) > 1:
        return _infer_joint_task(table, infos, name, steady)
    info = infos[0]
    if info.type in ("category", "boolean"):
        return (
            ("classification", f"{name} is one {info.type} per sequence")
            if steady
            else ("tagging", f"{name} is a {info.type} that changes within a sequence")
        )
    if not steady:
        return "forecasting", f"{name} is a number that changes within a sequence"
    if _few_integers(table, info.name):
        return "classification", f"{name} has at most {_MOST_INTEGER_CLASSES} whole-number values"
    return "regression", f"{name} is one number per sequence"


def _infer_joint_task(table: Table, infos: list[ColumnInfo], name: str, steady: bool) -> tuple[str, str]:
    if any(i.type not in ("number", "boolean") for i in infos):
        return "multilabel", f"{name}: several columns, not all of them numbers"
    if not steady:
        return "forecasting", f"{name}: numbers that change within a sequence"
    if all(i.type == "boolean" or (i.width == 1 and _only_0_and_1(table, i.name)) for i in infos):
        return "multilabel", f"{name}: several yes/no columns"
    return "regression", f"{name}: numbers, one each per sequence"


def _only_0_and_1(table: Table, name: str) -> bool:
    values = first_values(table, name)
    return bool(np.isin(values[~np.isnan(values)], (0, 1)).all())


def _few_integers(table: Table, name: str) -> bool:
    values = first_values(table, name)
    values = values[~np.isnan(values)]
    distinct = np.unique(values)
    return bool(
        values.size
        and (values == np.round(values)).all()
        and distinct.size <= _MOST_INTEGER_CLASSES
        and distinct.size * 2 <= values.size
    )


def _check_task(table: Table, infos: list[ColumnInfo], task: str) -> None:
    doing = f"planning {task} for {table.name}"
    if task in ("classification", "tagging") and len(infos) > 1:
        raise ConfigError(doing, expected="one target", got=str([i.name for i in infos]), hint="task='multilabel'")
    for info in infos:
        numeric = task in ("regression", "forecasting")
        if numeric and info.type not in ("number", "boolean"):
            raise ConfigError(
                doing,
                expected="a target of numbers",
                got=f"column {info.name!r} of type {info.type}",
                hint="task='classification' or 'tagging', or another target",
            )
        if info.type in ("timestamp", "text") or info.width > 1:
            raise ConfigError(
                doing,
                expected="a target of single numbers, categories or booleans",
                got=f"column {info.name!r}: {info.type} of width {info.width}",
                hint="another target",
            )
        if task == "multilabel" and info.type not in ("boolean", "number"):
            raise ConfigError(
                doing,
                expected="targets of yes/no or 0/1",
                got=f"column {info.name!r} of type {info.type}",
                hint="one target at a time",
            )
        if task not in ("tagging", "forecasting") and not info.constant:
            raise DataError(
                doing,
                expected=f"one value of {info.name!r} per sequence",
                got=f"a value that changes within sequence {_first_changing(table, info.name)!r}",
                hint="task='tagging' or 'forecasting', or check id=",
            )
        if info.missing >= int(table.offsets[-1]):
            raise DataError(
                doing,
                expected=f"values in target {info.name!r}",
                got="only missing ones",
                hint="check the column",
            )


def _first_changing(table: Table, name: str) -> str | int:
    for i, sequence in enumerate(table.ids):
        values = table.read(name, int(table.offsets[i]), int(table.offsets[i + 1]))
        values = values[~is_missing(table.columns[name], values)]
        if (values[1:] != values[:-1]).any():
            return sequence
    return table.ids[0]


def first_values(table: Table, name: str) -> np.ndarray:
    """Return the first value of each sequence that is not missing, [N], a missing one where it has none."""
    info, starts = table.columns[name], table.offsets[:-1]
    if table.in_memory:
        values = table.read(name, 0, table.rows)
        rows = np.where(is_missing(info, values), table.rows, np.arange(table.rows))
        first = np.minimum.reduceat(rows, starts)
        return np.asarray(values[np.where(first < table.rows, first, starts)])
    return np.concatenate(
        [_first_value(table, info, int(a), int(b)) for a, b in zip(starts, table.offsets[1:], strict=True)]
    )


def _first_value(table: Table, info: ColumnInfo, start: int, stop: int) -> np.ndarray:
    # Most sequences have it in their first row: read more only as far as needed.
    at, size = start, 1
    while True:
        values = table.read(info.name, at, min(at + size, stop))
        seen = np.flatnonzero(~is_missing(info, values))
        if seen.size or at + size >= stop:
            return values[seen[:1]] if seen.size else values[:1]
        at, size = at + size, min(8 * size, _BLOCK_ROWS)
