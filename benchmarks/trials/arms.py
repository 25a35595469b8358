"""Arms and rows: what is trained, what is set beside what, and what must come of it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from tidegate.cells import CELLS, Cell
from tidegate.files import canonical_json, sha256
from trials.problem import Problem

if TYPE_CHECKING:
    from trials.records import Record


@dataclass(frozen=True)
class Arm:
    """One model on a task: a cell, its options, what surrounds it, and settings of the loop (`TrainSettings`).

    A run stops at the problem's goal, if it has one. `cell` names one of the catalogue, or is a class; `seeds`: how
    many at most; `tested`: whether the kept weights are looked at on the test part, once; `reads`: the problem that it
    is trained on, where that draws otherwise than the task's.
    """

    name: str
    cell: str | type[Cell] = "lstm"
    hidden: int = 64
    inside: Mapping[str, Any] = field(default_factory=dict)
    around: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 5
    tested: bool = False
    reads: Problem | None = None

    @property
    def kind(self) -> type[Cell]:
        """The cell's class."""
        return CELLS[self.cell] if isinstance(self.cell, str) else self.cell


@dataclass(frozen=True)
class Row:
    """A technique OFF and ON: two arms of one task, alike in all else.

    `published` says what its paper has; [M]: from memory, not verified, and of another budget or task.
    """

    technique: str
    off: str
    on: str
    published: str = ""


@dataclass(frozen=True)
class Check:
    """What must hold of an arm's runs, in words and as a function of their records; `figure` is what it is about."""

    says: str
    arm: str
    holds: Callable[[Sequence[Record]], bool]
    figure: Callable[[Record], float] = lambda record: record.best if record.test is None else record.test


@dataclass(frozen=True)
class Task:
    """A problem with everything that is tried on it."""

    problem: Problem
    arms: tuple[Arm, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...] = ()

    def arm(self, name: str) -> Arm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def parameters(self, name: str) -> int:
        """Return how many numbers an arm's model learns."""
        arm = self.arm(name)
        model = self.problem.network(arm.kind, arm.hidden, dict(arm.inside), dict(arm.around))
        return sum(each.numel() for each in model.parameters())


def digest(problem: Problem, arm: Arm, *, quick: bool = False) -> str:
    """Return what a run depends on beside its seed, as a short fingerprint: settings, and the code of its task.

    Tidegate itself is not in it: runs of another version belong to another folder.
    """
    told = {k: _plain(v) for k, v in vars(arm).items() if k not in ("name", "seeds", "tested", "reads")}
    told |= {"problem": repr(problem), "quick": quick} | ({"reads": repr(arm.reads)} if arm.reads else {})
    classes = [each for one in (type(problem), arm.kind, type(arm.reads)) for each in one.__mro__]
    modules = sorted({each.__module__ for each in classes if each.__module__.startswith("trials.")})
    told["code"] = {module: _code(module) for module in modules}
    return sha256(canonical_json(told))[:16]


@cache
def _code(module: str) -> list[str]:
    """Return a module's functions and classes as text, and its constants."""
    found = []
    for name, value in sorted(vars(sys.modules[module]).items()):
        inner = inspect.unwrap(value) if callable(value) else value
        if inspect.isclass(inner) or inspect.isfunction(inner):
            found += [inspect.getsource(inner)] if inner.__module__ == module else []
        elif name.isupper() and isinstance(value, int | float | str | tuple):
            found.append(f"{name} = {value!r}")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return dict(value) if isinstance(value, Mapping) else value
