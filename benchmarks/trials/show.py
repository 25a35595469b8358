"""The benchmark in the terminal: a line for each run as it ends, a table for each task, what had to hold."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from trials.arms import Task
from trials.problem import Problem
from trials.records import Record
from trials.verdict import Checked, Side, Verdict

MISSING = "–"
HOLDS = {True: "holds", False: "FAILS", None: "open"}


def progress(number: int, total: int, record: Record, problem: Problem) -> str:
    """Return a run's line."""
    how = f"goal after {record.reached} steps" if record.reached else record.failed or "to the end"
    tested = "" if record.test is None else f", test {figure(record.test)}"
    return (
        f"{number:4d}/{total} {record.task:18s} {record.arm:32s} seed {record.seed}  {problem.figure} "
        f"{figure(record.best)}{tested}  {how}  {record.cpu_seconds:.0f} s"
    )


def table(task: Task, name: str, rows: Sequence[Verdict], runs: Sequence[Record]) -> str:
    """Return a task's rows under its name, its figure and what chance and goal are."""
    problem = task.problem
    told = [f"\n{name}: {problem.about}, {problem.figure} on the validation part, {problem.better} is better"]
    for word, value in (("chance", problem.chance), ("goal", problem.goal)):
        if value is not None:
            told.append(f"{word} {figure(value)}")
    lines = [", ".join(told)]
    lines += [_row(row, task) for row in rows]
    return "\n".join([*lines, *_tests(name, runs)])


def _tests(name: str, runs: Sequence[Record]) -> list[str]:
    """Return what arms reach on the test part."""
    found: dict[str, list[float]] = {}
    for run in runs:
        if run.task == name and run.test is not None:
            found.setdefault(run.arm, []).append(run.test)
    return [f"  test part, {arm}: mean {figure(fmean(tests))} of {len(tests)}" for arm, tests in found.items()]


def _row(row: Verdict, task: Task) -> str:
    off, on = task.parameters(row.row.off), task.parameters(row.row.on)
    sizes = "" if off == on else f", {on:,} parameters for {off:,}"
    published = f"  [{row.row.published}]" if row.row.published else ""
    return f"  {row.row.technique:34s} OFF {side(row.off):34s} ON {side(row.on):34s} {row.says}{sizes}{published}"


def side(one: Side) -> str:
    """Return an arm's figures: the mean best, successes, and the median steps to the goal."""
    steps = f", {one.steps:.0f} steps" if one.steps is not None else ""
    return f"{figure(one.figure)} ({one.reached}/{one.runs}{steps})"


def figure(value: float) -> str:
    """Return a figure with four digits."""
    return f"{value:.4g}"


def closing(checks: Sequence[Checked], runs: Sequence[Record], seconds: float) -> str:
    """Return what had to hold and whether it does, and what it cost."""
    lines = ["", *(f"{HOLDS[c.holds]:6s} {c.task}: {c.says} ({c.figures})" for c in checks)]
    failed = sum(r.failed is not None for r in runs)
    spent = sum(r.cpu_seconds for r in runs)
    lines.append(f"{len(runs)} runs, {failed} diverged, {spent:.0f} s of CPU; {seconds:.0f} s this time")
    return "\n".join(lines)
