"""`tidegate bench`: measure, show each row as it comes, write JSON and a page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate.bench import show
from tidegate.bench.first_call import FirstCall
from tidegate.bench.measure import TOLERANCE
from tidegate.bench.page import page
from tidegate.bench.rows import Row, Summary, summarise
from tidegate.bench.run import Plan, first_calls, machine, measure
from tidegate.errors import BackendError
from tidegate.files import write_atomically

JSON, PAGE = "bench.json", "bench.html"


BUSY = 0.5
"""A load (processes that run or wait to, over the last minute) from which on figures are not to be trusted."""


def bench(plan: Plan, out: Path, say: Callable[[str], None] | None) -> dict[str, Any]:
    """Run the plan, saying each row as it comes; write `bench.json` and `bench.html` to `out`; return the JSON.

    Where it is interrupted, what was measured before is written. Raises `BackendError` at the end, everything written,
    where a result differed from the reference.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = show.columns(plan.backends)
    notes: list[str] = []
    rows: list[Row] = []
    calls: list[FirstCall] = []

    def tell(text: str) -> None:
        if say is not None:
            say(text)

    def note(text: str) -> None:
        notes.append(text)
        tell(f"note: {text}")

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY:
        note(f"the machine is busy (a load of {load:.1f} before the first row): ratios are less sure, times too long")
    tell(show.heading(names))
    try:
        for row in measure(plan, note):
            rows.append(row)
            tell(show.line(row, names))
        tell(show.closing(summarise(rows)))
        for call in first_calls(plan):
            calls.append(call)
            tell(show.first_call_line(call))
    except KeyboardInterrupt:
        note(f"interrupted after {len(rows)} rows")
        raise
    finally:
        summary, about = summarise(rows), machine(plan)
        report = _report(about, rows, summary, calls, notes)
        write_atomically(out / JSON, json.dumps(report, indent=1, ensure_ascii=False).encode())
        write_atomically(out / PAGE, page(rows, summary, calls, names, about, notes).encode())
        tell(f"written to {out / JSON} and {out / PAGE}")
    _check(summary)
    return report


def _report(
    about: dict[str, Any], rows: list[Row], summary: Summary, calls: list[FirstCall], notes: list[str]
) -> dict[str, Any]:
    return {
        **about,
        "rows": [row.as_json() for row in rows],
        "geometric_mean": summary.geometric_mean,
        "geometric_mean_by_cell": summary.by_cell,
        "geometric_mean_by_peer": summary.by_peer,
        "worst": None if summary.worst is None else summary.worst.as_json(),
        "failed_rows": len(summary.failed),
        "first_calls_seconds": [vars(call) for call in calls],
        "notes": notes,
    }


def _check(summary: Summary) -> None:
    if summary.failed:
        first = summary.failed[0]
        raise BackendError(
            "comparing results before timing them",
            expected=f"every output and gradient within {TOLERANCE:g} of the reference",
            got=f"{len(summary.failed)} rows that differ, as {first.cell} {first.size}: {first.wrong[0]}",
            hint="the rows marked WRONG were not timed; --cells and --sizes run them alone",
        )
