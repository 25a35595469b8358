"""What was measured, and the arithmetic over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.bench.grid import Size

OURS = "tidegate"
MODES = ("forward", "train")


@dataclass(frozen=True)
class Row:
    """One cell at one size, forward or train: each candidate's median in milliseconds, or what went wrong.

    `first` holds each candidate's first call, compiling included; it is in no median. `backend` is what "auto"
    chose; `refused` says of named backends why they do not run this; `wrong` lists what differs from the
    reference, and then nothing was timed.
    """

    cell: str
    size: Size
    mode: str
    times: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    backend: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()

    @property
    def peers(self) -> dict[str, float]:
        """The times of all that are not Tidegate."""
        return {name: time for name, time in self.times.items() if name.split()[0] != OURS}

    @property
    def ratios(self) -> dict[str, float]:
        """Each peer's time over that of Tidegate as users get it (backend "auto")."""
        return {name: peer / self.times[OURS] for name, peer in self.peers.items()}

    @property
    def ratio(self) -> float | None:
        """The best peer's time over Tidegate's; None where nothing was timed."""
        return min(self.ratios.values()) if self.times else None

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return {
            "cell": self.cell,
            **self.size._asdict(),
            "mode": self.mode,
            "backend": self.backend,
            "milliseconds": self.times,
            "first_call_milliseconds": self.first,
            "ratios": self.ratios,
            "ratio_to_best_peer": self.ratio,
            "refused": self.refused,
            "wrong": list(self.wrong),
        }


@dataclass(frozen=True)
class Summary:
    """All rows in a few figures: geometric means of ratios, the worst row, and the rows that failed.

    `geometric_mean` and `by_cell` are against the best peer of each row, `by_peer` against one peer where it runs.
    """

    rows: int
    geometric_mean: float | None
    by_cell: dict[str, float]
    by_peer: dict[str, float]
    worst: Row | None
    failed: tuple[Row, ...]


def summarise(rows: Sequence[Row]) -> Summary:
    """Summarise the rows. A failed row has no ratio: it is counted apart, never left out."""
    best = [(row, row.ratio) for row in rows if row.ratio is not None]
    by_cell: dict[str, list[float]] = {}
    by_peer: dict[str, list[float]] = {}
    for row, ratio in best:
        by_cell.setdefault(row.cell, []).append(ratio)
        for peer, against in row.ratios.items():
            by_peer.setdefault(peer, []).append(against)
    return Summary(
        rows=len(rows),
        geometric_mean=geometric_mean([ratio for _, ratio in best]) if best else None,
        by_cell={cell: geometric_mean(ratios) for cell, ratios in by_cell.items()},
        by_peer={peer: geometric_mean(ratios) for peer, ratios in by_peer.items()},
        worst=min(best, key=lambda pair: pair[1])[0] if best else None,
        failed=tuple(row for row in rows if row.wrong),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(math.fsum(map(math.log, values)) / len(values))
