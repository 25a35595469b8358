"""What is in a table, before anything is trained: roles, kinds, lengths, gaps, the tail of the target, the plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from tidegate.data.infer import TRUE_WORDS
from tidegate.data.kinds.timestamp import MISSING
from tidegate.data.schema import Schema, first_values, infer_schema
from tidegate.data.source import Source, open_source
from tidegate.data.table import ColumnInfo, Table, load_table
from tidegate.errors import InputError

_ID = re.compile(
    r"(.*[_ -])?(id|ids|uid|uuid|case|stay|series|sequence|session|patient|subject)([_ -]?id)?|.+[a-z]ID|.+Id"
)
_TIME = re.compile(
    r"(.*[_ -])?(time|date|datetime|timestamp|ts|ds|minute|hour|day|week|month|year|step|t)|.+(Time|Timestamp|Date)"
)
_EPOCH = datetime(1970, 1, 1)
_PIECE, _MOST_GAPS, _MOST_IDS, _TOP, _SUGGESTIONS = 1 << 20, 1 << 22, 1 << 22, 5, 12


def inspect_table(
    data: Any, *, target: Sequence[str] = (), id: str | None = None, time: str | None = None, task: str | None = None
) -> dict[str, Any]:
    """Describe a table as an object that JSON can hold.

    Without `id` or `time` they are guessed from names and content and marked as guessed: a guess is a suggestion,
    training takes only what it is told. With `target` the task is planned as training would; without one `suggestions`
    says what each column would be. Lengths are steps; timestamps are ISO 8601, their gaps seconds.
    Errors are those of reading the table, and of a target that cannot be one.
    """
    source = open_source(data)
    table, guessed, notes = _load(source, tuple(target), id, time)
    profile: dict[str, Any] = {
        "name": table.name,
        "rows": table.rows,
        "sequences": len(table.ids),
        "id": table.id_name,
        "time": table.time_name,
        "guessed": guessed,
        "lengths": _lengths(table),
    }
    plan = infer_schema(table, target, task=task) if target else None
    profile["columns"] = [_column(table, info, plan) for info in table.columns.values()]
    profile["gaps"] = _gaps(table)
    if plan:
        profile["target"] = list(plan.targets)
        profile["task"], profile["reason"] = plan.task, plan.reason
        profile["ignored"] = plan.ignored
        profile["classes"] = _classes(table, plan)
    else:
        profile["suggestions"] = _suggestions(table)
    profile["notes"] = notes + table.notes
    return profile


def _load(
    source: Source, target: tuple[str, ...], id: str | None, time: str | None
) -> tuple[Table, list[str], list[str]]:
    """Load with what was given, and guesses for what was not as far as they fit the rows."""
    flat = not source.nested and source.lengths is None
    likely_id = _guess_id(source, (*target, time)) if id is None and flat else id
    likely_time = _guess_time(source, (*target, likely_id)) if time is None else time
    notes: list[str] = []
    for try_id, try_time in dict.fromkeys([(likely_id, likely_time), (likely_id, time)]):
        guessed = {"id": try_id} if try_id != id else {}
        guessed |= {"time": try_time} if try_time != time else {}
        if not guessed:
            break
        try:
            table = load_table(source, id=try_id, time=try_time)
        except InputError as error:
            names = " and ".join(f"{role} {name!r}" for role, name in guessed.items())
            notes.append(f"{names} looked likely, but does not fit: {error.got}")
            continue
        notes += [f"{name!r} looks like the {role}: say --{role} {name} to use it" for role, name in guessed.items()]
        return table, list(guessed), notes
    return load_table(source, id=id, time=time), [], notes


def _guess_id(source: Source, taken: Sequence[str | None]) -> str | None:
    """Return the first column named like an id whose values repeat."""
    for name, dtype in source.columns.items():
        if (
            name in taken
            or dtype.is_float()
            or dtype.is_temporal()
            or dtype.is_nested()
            or not _ID.fullmatch(_plain(name))
        ):
            continue
        if _repeats(source, name):
            return name
    return None


def _repeats(source: Source, name: str) -> bool:
    """Whether a value of a column comes again before one is missing, within the first `_MOST_IDS` rows."""
    seen = pl.Series(name, [], pl.UInt64)
    for chunk in source.chunks([name]):
        if chunk[name].null_count() or len(seen) > _MOST_IDS:
            return False
        # Hashes of equal values are equal, and take 8 bytes each however long the values are.
        seen = pl.concat([seen, chunk[name].hash()])
        if seen.n_unique() < len(seen):
            return True
    return False


def _guess_time(source: Source, taken: Sequence[str | None]) -> str | None:
    """Return the first column named like a time that can be one, or the only column of timestamps."""
    free = {n: d for n, d in source.columns.items() if n not in taken}
    stamps = [n for n, d in free.items() if d.is_temporal()]
    named = [n for n, d in free.items() if _TIME.fullmatch(_plain(n)) and (d.is_temporal() or d.is_numeric())]
    named.sort(key=lambda n: n not in stamps)
    if named:
        return named[0]
    return stamps[0] if len(stamps) == 1 else None


def _plain(name: str) -> str:
    """Lower the case of names that are not camelCase."""
    return name if re.search(r"[a-z][A-Z]", name) else name.lower()


def _lengths(table: Table) -> dict[str, float]:
    lengths = np.diff(table.offsets)
    return {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": int(lengths.max())}


def _pieces(table: Table, name: str) -> Iterator[np.ndarray]:
    for start in range(0, table.rows, _PIECE):
        yield table.read(name, start, min(start + _PIECE, table.rows))


def _column(table: Table, info: ColumnInfo, plan: Schema | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": info.name,
        "type": info.type,
        "role": _role(table, info, plan),
        "missing": info.missing,
        "missing_share": info.missing / max(table.rows, 1),
        "constant_within_sequences": info.constant,
    }
    if info.width > 1:
        described["width"] = info.width
    if info.type == "category":
        counts = np.zeros(len(info.levels or ()), np.int64)
        for codes in _pieces(table, info.name):
            counts += np.bincount(codes[codes >= 0], minlength=len(counts))
        top = np.argsort(-counts, kind="stable")[:_TOP]
        return described | {"levels": len(counts), "top": {(info.levels or ())[i]: int(counts[i]) for i in top}}
    return described if info.type == "text" else described | _range(table, info)


def _range(table: Table, info: ColumnInfo) -> dict[str, Any]:
    total, count = 0.0, 0
    low = high = None
    for values in _pieces(table, info.name):
        known = values[values != MISSING] if info.type == "timestamp" else values[~np.isnan(values)]
        if known.size:
            low = known.min() if low is None else min(low, known.min())
            high = known.max() if high is None else max(high, known.max())
            total, count = total + float(known.astype(np.float64).sum()), count + known.size
    if low is None or high is None:
        return {"min": None, "max": None}
    if info.type == "timestamp":
        return {"min": _iso(int(low)), "max": _iso(int(high))}
    return {"min": float(low), "max": float(high), "mean": total / count}


def _iso(microseconds: int) -> str:
    return (_EPOCH + timedelta(microseconds=microseconds)).isoformat()


def _role(table: Table, info: ColumnInfo, plan: Schema | None) -> str:
    if info.name in (table.id_name, table.time_name):
        return "id" if info.name == table.id_name else "time"
    if plan is None:
        return "static" if info.constant and not info.patchy and len(table.ids) > 1 else "observed"
    if info.name in plan.targets:
        return "target"
    if info.name in plan.ignored:
        return "ignored"
    return "static" if info.name in plan.static else "known" if info.name in plan.known else "observed"


def _gaps(table: Table) -> dict[str, Any] | None:
    """Describe the time between neighbouring steps, of the first `_MOST_GAPS` rows; None without a time column."""
    if table.time_name is None:
        return None
    stop = min(table.rows, _MOST_GAPS)
    values = table.read(table.time_name, 0, stop)
    inside = np.ones(max(stop - 1, 0), dtype=bool)
    inside[[k - 1 for k in table.offsets[1:-1] if k < stop]] = False
    gaps = np.diff(values)[inside].astype(np.float64)
    if not gaps.size:
        return None
    stamped = table.columns[table.time_name].type == "timestamp"
    gaps = gaps / 1e6 if stamped else gaps
    typical = float(np.median(gaps))
    return {
        "unit": "seconds" if stamped else table.time_name,
        "typical": typical,
        "largest": float(gaps.max()),
        "uneven_share": float((np.abs(gaps - typical) > 0.01 * typical).mean()),
        "rows": stop,
    }


def _classes(table: Table, plan: Schema) -> dict[str, Any] | None:
    """Count the classes of the target: sequences, or steps where every step has one; None for targets of numbers."""
    if plan.task not in ("classification", "tagging", "multilabel"):
        return None
    counts: dict[str, int] = {}
    by_step = plan.task == "tagging"
    for name in plan.targets:
        values = _pieces(table, name) if by_step else [first_values(table, name)]
        for label, number in _counted(table.columns[name], values):
            if plan.task != "multilabel" or label in ("True", "1", *TRUE_WORDS):
                key = name if plan.task == "multilabel" else label
                counts[key] = counts.get(key, 0) + number
    if not counts:
        return None
    total = len(table.ids) if plan.task == "multilabel" else sum(counts.values())
    rarest = min(counts, key=lambda k: counts[k])
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return {"of": "steps" if by_step else "sequences", "counts": ordered, "total": total, "rarest": rarest,
            "rarest_share": counts[rarest] / total}  # fmt: skip


def _counted(info: ColumnInfo, pieces: Iterable[np.ndarray]) -> Iterator[tuple[str, int]]:
    for values in pieces:
        known = values[values >= 0] if info.type == "category" else values[~np.isnan(values)]
        for value, number in zip(*np.unique(known, return_counts=True), strict=True):
            if info.type == "category":
                yield (info.levels or ())[int(value)], int(number)
            else:
                yield (
                    str((info.words or (False, True))[int(value)] if info.type == "boolean" else f"{value:g}"),
                    int(number),
                )


def _suggestions(table: Table) -> list[dict[str, str]]:
    """Say what each column would be as a target; those that cannot be one are left out."""
    found: list[dict[str, str]] = []
    for name in table.columns:
        if name in (table.id_name, table.time_name) or len(found) == _SUGGESTIONS:
            continue
        try:
            plan = infer_schema(table, (name,))
        except InputError:
            continue
        found.append({"target": name, "task": plan.task, "reason": plan.reason})
    return found


def show(profile: dict[str, Any]) -> str:
    """Return the profile as plain text for a terminal."""
    lengths, guessed = profile["lengths"], profile["guessed"]
    steps = f"{lengths['min']:,} to {lengths['max']:,}, median {lengths['median']:,g}"
    facts = [
        ("table", profile["name"]),
        ("rows", f"{profile['rows']:,}"),
        ("sequences", f"{profile['sequences']:,}, steps each: {steps}"),
        *(
            (role, f"{profile[role] or 'none'}{' (looks like it)' if role in guessed else ''}")
            for role in ("id", "time")
        ),
    ]
    if gaps := profile["gaps"]:
        kind = _duration if gaps["unit"] == "seconds" else "{:,g}".format
        uneven = f"{100 * gaps['uneven_share']:.1f} % of the gaps uneven"
        facts.append(("time step", f"typically {kind(gaps['typical'])}, at most {kind(gaps['largest'])}, {uneven}"))
    if "task" in profile:
        facts += [("target", ", ".join(profile["target"])), ("task", f"{profile['task']}: {profile['reason']}")]
    if classes := profile.get("classes"):
        rare = f"{classes['rarest']!r} is rarest: {100 * classes['rarest_share']:.2g} %"
        counts = list(classes["counts"].items())
        listed = ", ".join(f"{k} {n:,}" for k, n in counts[:10]) + (
            f", {len(counts) - 10} more" if len(counts) > 10 else ""
        )
        facts.append(("classes", f"{listed} of {classes['total']:,} {classes['of']}; {rare}"))
    parts = ["\n".join(f"{name:<10} {value}" for name, value in facts), _columns_text(profile)]
    if profile.get("suggestions"):
        rows = [[s["target"], s["task"], s["reason"]] for s in profile["suggestions"]]
        parts.append("As a target (--target):\n" + _aligned([["column", "task", "because"], *rows]))
    if profile["notes"]:
        parts.append("\n".join(f"note: {note}" for note in profile["notes"]))
    return "\n\n".join(parts)


def _columns_text(profile: dict[str, Any]) -> str:
    rows = [["column", "type", "role", "missing", "values"]]
    ignored = profile.get("ignored", {})
    for c in profile["columns"]:
        missing = f"{100 * c['missing_share']:.1f} %" if c["missing"] else "–"
        why = f" ({ignored[c['name']]})" if c["name"] in ignored else ""
        rows.append([c["name"], c["type"], c["role"], missing, _values(c) + why])
    return _aligned(rows)


def _values(column: dict[str, Any]) -> str:
    if "levels" in column:
        top = ", ".join(_short(level) for level in column["top"])
        return f"{column['levels']:,}: {top}{', …' if column['levels'] > len(column['top']) else ''}"
    if column["type"] == "text":
        return "free text or a key"
    if column["min"] is None:
        return "none"
    if "mean" not in column:
        return f"{column['min']} to {column['max']}"
    width = f"{column['width']} a step, " if "width" in column else ""
    return f"{width}{column['min']:.6g} to {column['max']:.6g}, mean {column['mean']:.4g}"


def _short(label: str) -> str:
    return label if len(label) <= 16 else label[:15] + "…"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds:.4g} s"
