"""Agreement with the reference first, then time, in turns."""

from __future__ import annotations

import copy
import gc
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from torch import Tensor

from tidegate.bench.peers import Candidate, Masks, Tidegate
from tidegate.cells import Cell

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Effort:
    """How long is measured: `rounds` turns for each candidate, a turn at least `turn_seconds` long."""

    rounds: int = 11
    turn_seconds: float = 0.02


QUICK = Effort(rounds=3, turn_seconds=0.005)


def disagreements(candidates: Sequence[Candidate], cell: Cell, x: Tensor, dy: Tensor, masks: Masks | None) -> list[str]:
    """Return, for each candidate that has one, the result furthest from the reference beyond `TOLERANCE`.

    Compared are all outputs and gradients, with the reference in float64. Distances are relative: the largest
    difference over the largest number of the reference's tensor.
    """
    truth = _results(Tidegate(copy.deepcopy(cell).double(), "reference", x.double(), dy.double()), masks)
    wrong = []
    for candidate in candidates:
        found = _results(candidate, masks)
        far = {what: off for what in truth if (off := distance(found[what], truth[what])) > TOLERANCE}
        if far:
            worst = max(far, key=lambda what: far[what])
            wrong.append(f"{candidate.name}: {worst} off by {far[worst]:.1e} of the largest")
    return wrong


def _results(candidate: Candidate, masks: Masks | None) -> dict[str, Tensor]:
    evaluated = candidate.outputs()
    trained, gradients = candidate.gradients(masks)
    named = {f"gradient of {name}": gradient for name, gradient in gradients.items()}
    return {"outputs in evaluation": evaluated, "outputs in training": trained, **named}


def distance(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the largest number expected; infinity where any is not a number."""
    scale = expected.abs().max().clamp(min=1e-30)
    return float(((got.double() - expected).abs().max() / scale).nan_to_num(nan=math.inf))


def time_in_turns(calls: dict[str, Callable[[], object]], effort: Effort) -> dict[str, float]:
    """Return each call's median in milliseconds, taken turn by turn: what slows the machine for a while slows all.

    Unless one call fills a turn, the first of each does not count: worker threads of the candidate before may
    still be spinning. The order moves on by one each round.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(effort.rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                taken[name] += _turn(calls[name], effort.turn_seconds)
    finally:
        if collecting:
            gc.enable()
    return {name: statistics.median(each) for name, each in taken.items()}


def _turn(call: Callable[[], object], seconds: float) -> list[float]:
    first = milliseconds(call)
    if first >= seconds * 1e3:
        return [first]
    taken = [milliseconds(call)]
    while sum(taken) < seconds * 1e3:
        taken.append(milliseconds(call))
    return taken


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = perf_counter()
    call()
    return (perf_counter() - start) * 1e3
