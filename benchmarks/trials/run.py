"""One run: an arm of a task, with a seed, from nothing to its record."""

from __future__ import annotations

import time
from pathlib import Path

from tidegate.errors import InputError, TidegateError
from tidegate.train.evaluation import evaluate
from tidegate.train.events import EpochEnd, Event, Stop
from tidegate.train.loop import fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings
from trials.arms import Arm, Task, digest
from trials.problem import Problem
from trials.records import Record

QUICK_STEPS, QUICK_EPOCHS = 3, 2


class _Watcher:
    """Notes every evaluation, and asks for a stop at the goal."""

    def __init__(self, problem: Problem, steps: int) -> None:
        self.problem, self.steps = problem, steps
        self.curve: list[list[float]] = []
        self.reached: int | None = None

    def __call__(self, event: Event) -> Stop | None:
        if not isinstance(event, EpochEnd):
            return None
        done, figure = (event.epoch + 1) * self.steps, event.metrics[self.problem.figure]
        self.curve.append([done, figure, event.train_loss])
        if self.reached is None and self.problem.reaches(figure):
            self.reached = done
        return Stop("the goal is reached") if self.reached is not None else None


def run(name: str, task: Task, arm: Arm, seed: int, data: Path, *, quick: bool = False) -> Record:
    """Train an arm with a seed and return what came of it. A run that diverges is a run without success."""
    problem = task.problem
    most = QUICK_STEPS if quick else None
    chosen = {"monitor": problem.figure, **arm.settings, "device": "cpu"}
    settings = TrainSettings.model_validate(chosen | ({"epochs": QUICK_EPOCHS} if quick else {}))
    train = (arm.reads or problem).train(seed, data, most)
    valid, test = problem.valid(data, most), problem.test(data)
    watcher = _Watcher(problem, train.steps)
    cpu, wall = time.process_time(), time.perf_counter()
    seed_everything(seed)
    model = problem.network(arm.kind, arm.hidden, dict(arm.inside), dict(arm.around))
    failed, tested = None, None
    try:
        fit(model, train, valid, settings, observers=[watcher])
    except InputError:
        raise
    except TidegateError as error:
        failed = str(error).splitlines()[0]
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if arm.tested and test is not None and failed is None:
        tested = evaluate(model, test, f"testing {arm.name}")[0][problem.figure]
    best = problem.best([figure for _, figure, _ in watcher.curve])
    key = digest(problem, arm, quick=quick)
    return Record(name, arm.name, seed, key, watcher.curve, best, watcher.reached, tested, failed, cpu, wall)
