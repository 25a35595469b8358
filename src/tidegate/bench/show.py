"""The benchmark in the terminal: a line for each row as it is measured, then what the rows come to."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.bench.first_call import FirstCall
from tidegate.bench.rows import OURS, Row, Summary

MISSING = "–"
_NAMES = (26, 13, 8)


def columns(backends: Sequence[str]) -> tuple[str, ...]:
    """Return the candidates in the order of the table."""
    return (OURS, *(f"{OURS} {name}" for name in backends), "torch.nn", "torch loop", "jax scan")


def heading(names: Sequence[str]) -> str:
    """Return the table's first lines."""
    shown = [*names, "best/ours"]
    line = _left("cell", "BxHxT", "") + "".join(_right(name) for name in shown) + "  backend"
    return f"milliseconds, medians; best/ours: the best peer's time over Tidegate's\n{line}"


def line(row: Row, names: Sequence[str]) -> str:
    """Return a row of the table."""
    start = _left(row.cell, "x".join(map(str, row.size)), row.mode)
    if row.wrong:
        return f"{start}  WRONG, not timed: {'; '.join(row.wrong)}"
    ratio = MISSING if row.ratio is None else f"{row.ratio:.2f}"
    return start + "".join(_right(_time(row, name)) for name in names) + _right(ratio) + f"  {row.backend}"


def _time(row: Row, name: str) -> str:
    if name in row.refused:
        return "refuses"
    return f"{row.times[name]:.3g}" if name in row.times else MISSING


def _left(*texts: str) -> str:
    return "".join(text.ljust(width) for text, width in zip(texts, _NAMES, strict=True))


def _right(text: str) -> str:
    return text.rjust(max(10, len(text)) + 2)


def closing(summary: Summary) -> str:
    """Return the summary in words."""
    lines = []
    if summary.geometric_mean is not None and summary.worst is not None:
        worst = summary.worst
        lines = [
            f"geometric mean of {summary.rows - len(summary.failed)} rows against the best peer of each: "
            f"{summary.geometric_mean:.2f}",
            f"    by cell: {_listed(summary.by_cell)}",
            f"    against each peer alone: {_listed(summary.by_peer)}",
            f"worst row: {worst.ratio:.2f}, {worst.cell} {'x'.join(map(str, worst.size))} {worst.mode}",
        ]
    if summary.failed:
        lines.append(f"{len(summary.failed)} of {summary.rows} rows differ from the reference and were not timed")
    return "\n".join(lines)


def _listed(means: dict[str, float]) -> str:
    return ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())


def first_call_line(call: FirstCall) -> str:
    """Return what a first call costs, in words."""
    return (
        f"first call of {call.cell} on {call.backend}: {call.fresh:.2f} s, "
        f"in a new process that finds compiled code {call.kept:.2f} s"
    )
