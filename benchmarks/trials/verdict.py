"""What runs come to: successes, steps, figures, and whether ON beats OFF."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trials.arms import Row, Task
from trials.records import Record, of


def successes(records: Sequence[Record]) -> float:
    """Return the share of runs that reached the goal."""
    return sum(r.reached is not None for r in records) / len(records)


def best_of(records: Sequence[Record], which: Callable[[Iterable[float]], float]) -> float:
    """Return the least, the largest or the mean of the runs' best figures."""
    return which([r.best for r in records])


def tests(records: Sequence[Record]) -> list[float]:
    """Return the figures of the test part; none where training broke off."""
    return [math.nan if r.test is None else r.test for r in records]


@dataclass(frozen=True)
class Side:
    """One arm over its seeds: the mean best figure, runs that reached the goal, and their median steps to it."""

    runs: int
    figure: float
    reached: int
    steps: float | None
    cpu_seconds: float

    @classmethod
    def over(cls, records: Sequence[Record]) -> Side:
        """Sum up an arm's runs."""
        steps = [r.reached for r in records if r.reached is not None]
        return cls(
            len(records),
            statistics.fmean(r.best for r in records),
            len(steps),
            statistics.median(steps) if steps else None,
            sum(r.cpu_seconds for r in records),
        )


@dataclass(frozen=True)
class Verdict:
    """OFF and ON of a row over the seeds that both have; `gain` is how much better ON's figure is, seed by seed.

    `error` is the standard error of the mean gain, None for one seed.
    """

    task: str
    row: Row
    off: Side
    on: Side
    gain: float
    error: float | None
    says: str


def verdicts(name: str, task: Task, records: Sequence[Record]) -> list[Verdict]:
    """Return the rows of a task that have been run, OFF and ON, on a seed at least."""
    found = []
    for row in task.rows:
        off = {r.seed: r for r in of(records, name, row.off)}
        on = {r.seed: r for r in of(records, name, row.on)}
        seeds = sorted(off.keys() & on.keys())
        if seeds:
            found.append(_verdict(name, task, row, [off[s] for s in seeds], [on[s] for s in seeds]))
    return found


def _verdict(name: str, task: Task, row: Row, off: Sequence[Record], on: Sequence[Record]) -> Verdict:
    sign = 1 if task.problem.better == "lower" else -1
    gains = [sign * (b.best - a.best) for a, b in zip(on, off, strict=True)]
    gain = statistics.fmean(gains)
    finite = all(map(math.isfinite, gains))
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 and finite else None
    sides = Side.over(off), Side.over(on)
    return Verdict(name, row, *sides, gain, error, _says(*sides, gain, error))


def _says(off: Side, on: Side, gain: float, error: float | None) -> str:
    """Say what a row shows: success first, then steps to it, then the figure, which has to be clear of its error."""
    if on.reached != off.reached:
        return "more runs succeed" if on.reached > off.reached else "fewer runs succeed"
    if on.reached == on.runs and on.steps is not None and off.steps is not None:
        return f"{off.steps / on.steps:.2g} × as fast to the goal"
    if not math.isfinite(gain):
        return "a side diverges"
    if error is None:
        return "one seed only"
    if abs(gain) <= 2 * error:
        return "no clear difference here"
    return "improves the figure" if gain > 0 else "does not improve here: worse"


@dataclass(frozen=True)
class Checked:
    """What had to hold of an arm, whether it does, and the figures it was judged by."""

    task: str
    says: str
    holds: bool
    figures: str


def checked(name: str, task: Task, records: Sequence[Record]) -> list[Checked]:
    """Return the checks of a task whose arms have been run."""
    found = []
    for check in task.checks:
        runs = of(records, name, check.arm)
        if runs:
            figures = ", ".join(f"{check.figure(r):.4g}" for r in runs)
            found.append(Checked(name, check.says, bool(check.holds(runs)), figures))
    return found
