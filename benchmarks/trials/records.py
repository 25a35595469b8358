"""What a run left behind: one JSON line each, written when it is done and found again by the next start."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """A run. `curve` holds [steps, figure, training loss] of every evaluation; `best` is the best figure of them.

    `reached`: steps to the goal, None where it was never reached. `test`: the figure of the kept weights on the test
    part, where there is one. `failed`: why training broke off, as by a loss that is no number.
    """

    task: str
    arm: str
    seed: int
    digest: str
    curve: list[list[float]]
    best: float
    reached: int | None
    test: float | None
    failed: str | None
    cpu_seconds: float
    wall_seconds: float

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What tells runs apart."""
        return (self.task, self.arm, self.seed, self.digest)


def append(path: Path, record: Record) -> None:
    """Add a line, on the disk before this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record), allow_nan=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Record]:
    """Return the records of a file, the newest of each run; a last line that was cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    found = {}
    for number, line in enumerate(lines, 1):
        if number == len(lines) and not line.endswith("\n"):
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            break
        record = Record(**json.loads(line))
        found[record.key] = record
    return list(found.values())


def of(records: Iterable[Record], task: str, arm: str) -> list[Record]:
    """Return an arm's records by seed."""
    return sorted((r for r in records if (r.task, r.arm) == (task, arm)), key=lambda r: r.seed)


def is_number(value: Any) -> bool:
    """Whether a figure is there and finite."""
    return isinstance(value, int | float) and abs(value) < float("inf")
