"""What runs come to: successes, steps, figures, and whether ON beats OFF."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t

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

    `error` is the standard error of the mean gain, None for one seed or where a side diverges.
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
    sides = Side.over(off), Side.over(on)
    solved = min(side.reached for side in sides) >= max(len(gains) - 1, 1)
    faster = [math.log(_steps(b) / _steps(a)) for a, b in zip(on, off, strict=True)] if solved else []
    return Verdict(name, row, *sides, statistics.fmean(gains), _error(gains), _says(*sides, gains, faster))


def _steps(record: Record) -> float:
    """Return the steps to the goal; of a run that ended before, all it took."""
    return record.reached or record.curve[-1][0]


def _error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean, None where it cannot be told."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def _clear(values: Sequence[float]) -> bool:
    """Whether a mean is other than 0: Student's t, two sides, 5 %."""
    error = _error(values)
    return error is not None and abs(statistics.fmean(values)) > t.ppf(0.975, len(values) - 1) * error


def _says(off: Side, on: Side, gains: Sequence[float], faster: Sequence[float]) -> str:
    """Say what a row shows: success first, of two runs more at least; then steps to it, where all runs but one or none
    succeed; then the figure.
    """
    if abs(on.reached - off.reached) > 1:
        return "more runs succeed" if on.reached > off.reached else "fewer runs succeed"
    if not all(map(math.isfinite, gains)):
        return "a side diverges"
    if len(gains) < 2:
        return "one seed only"
    if faster:
        times = math.exp(statistics.fmean(faster))
        return f"{times:.2g} × as fast to the goal" if _clear(faster) else "no clear difference here"
    if not _clear(gains):
        return "no clear difference here"
    return "improves the figure" if statistics.fmean(gains) > 0 else "does not improve here: worse"


@dataclass(frozen=True)
class Checked:
    """What had to hold of an arm, the figures it was judged by, and whether it holds: None where seeds are missing."""

    task: str
    says: str
    holds: bool | None
    figures: str


def checked(name: str, task: Task, records: Sequence[Record]) -> list[Checked]:
    """Return the checks of a task whose arms have been run. Nothing holds of an arm of which a run diverged."""
    found = []
    for check in task.checks:
        runs = of(records, name, check.arm)
        if runs:
            figures = ", ".join(f"{check.figure(r):.4g}" for r in runs)
            judged = len(runs) >= task.arm(check.arm).seeds
            sound = all(r.failed is None for r in runs)
            found.append(Checked(name, check.says, sound and bool(check.holds(runs)) if judged else None, figures))
    return found
