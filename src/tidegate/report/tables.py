"""What a report says of a model that was trained on a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.data.table import ColumnInfo, Table
from tidegate.report import figures
from tidegate.report.markup import About, Cell, Plots, section, share, table
from tidegate.report.pictures import pictures


def about_table(model: Any, prepared: Any) -> About:
    """Return the title, facts of the run, and how sections on the validation part and the data are made."""
    plan, source, task = model.blueprint.plan, prepared.train.maker.encoded.table, model.blueprint.task
    pairs: list[tuple[str, object]] = [
        ("Rows, sequences", f"{source.rows:,}, {len(source.ids):,}"),
        ("Task", f"{plan.task}: {plan.reason}"),
        ("Target", ", ".join(plan.targets)),
        ("Sequence id", plan.id or "none"),
        ("Time", plan.time or "none: rows in the order given"),
        ("Input columns", f"{len(plan.inputs):,}"),
    ]
    if plan.task == "forecasting":
        pairs.insert(3, ("Horizon, look-back", f"{task.horizon:,}, {task.lookback:,} steps"))

    def sections(plots: Plots) -> str:
        shown = section("On the validation part", pictures(model.network, prepared.valid, task, plots))
        return shown + _data(source, plan, plots)

    return f"{plan.task.capitalize()} of {', '.join(plan.targets)}", pairs, sections


def _data(source: Table, plan: Any, plots: Plots) -> str:
    rows: list[list[Cell]] = [
        [name, _role(name, plan), _kind(info), share(info.missing / max(source.rows, 1)), plan.ignored.get(name, "")]
        for name, info in source.columns.items()
    ]
    rows.sort(key=lambda row: _ROLES.index(str(row[1])))
    columns = table(["Column", "Role", "Kind", "Missing", "Note"], rows, "Every column of the table")
    return section("The data", _lengths(source, plots), columns)


_ROLES = ("target", "id", "time", "input", "input, known ahead", "input, static", "ignored")


def _role(name: str, plan: Any) -> str:
    for role, names in (("target", plan.targets), ("id", (plan.id,)), ("time", (plan.time,)), ("ignored", plan.ignored),
                        ("input, static", plan.static)):  # fmt: skip
        if name in names:
            return role
    return "input, known ahead" if plan.task == "forecasting" and name in plan.known else "input"


def _kind(info: ColumnInfo) -> str:
    if info.type == "category":
        return f"category, {len(info.levels or ()):,} values"
    return info.type if info.width == 1 else f"{info.width} numbers a step"


def _lengths(source: Table, plots: Plots) -> str:
    lengths = np.diff(source.offsets)
    least, most = int(lengths.min()), int(lengths.max())
    if len(lengths) == 1:
        return f"<p>One sequence of {most:,} steps.</p>"
    if least == most:
        return f"<p>{len(lengths):,} sequences, each of {most:,} steps.</p>"
    counts, edges = np.histogram(lengths, bins=np.linspace(least - 0.5, most + 0.5, min(40, most - least + 1) + 1))
    caption = f"Lengths of {len(lengths):,} sequences: {least:,} to {most:,} steps, median {np.median(lengths):,.4g}."
    return plots.frame(figures.bars(edges, counts, "Steps", "Sequences"), caption)
