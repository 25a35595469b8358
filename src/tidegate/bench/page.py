"""The benchmark as one HTML page: one file, no network, nothing but what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate.bench.first_call import FirstCall
from tidegate.bench.rows import MODES, Row, Summary
from tidegate.report.document import document
from tidegate.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, escape
from tidegate.report.markup import Cell, Plots, cards, facts, figures_of, section, table, text

TITLE = "Tidegate beside torch.nn, a PyTorch loop and jax.lax.scan"
_LEAD = (
    "Measured in turns in one process, float32, input as wide as the layer, input product included. Forward is "
    "without gradients; train is forward, and backward to input and weights. Every result was first held against "
    "the reference."
)
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#c2405a", "#3aa6b9", "#8d6e3f", GREY)
_AXIS = {"type": "category", "automargin": True}


def page(
    rows: Sequence[Row],
    summary: Summary,
    calls: Sequence[FirstCall],
    names: Sequence[str],
    machine: dict[str, Any],
    notes: Sequence[str],
) -> str:
    """Return the page as text; `names` are the candidates in order, `machine` what the figures depend on."""
    plots = Plots()
    body = "".join(
        [
            cards(_cards(summary)),
            section("Best peer ÷ Tidegate", _grid(_ratios(rows, mode, plots) for mode in MODES)),
            section("Every row", _table(rows, names)),
            section("Milliseconds", _grid(_times(rows, cell, mode, names, plots) for cell, mode in _pairs(rows))),
            section("First call", _first_calls(calls)),
            section("Measured on", facts(_facts(machine))),
            section("Notes", "".join(f"<p>{text(note)}</p>" for note in notes)) if notes else "",
        ]
    )
    return document(TITLE, TITLE, _LEAD, body, plots)


def _cards(summary: Summary) -> list[tuple[str, str, str]]:
    failed = (
        "Rows",
        f"{summary.rows}",
        f"{len(summary.failed)} wrong and not timed" if summary.failed else "all timed",
    )
    if summary.geometric_mean is None or summary.worst is None:
        return [failed]
    worst = summary.worst
    return [
        ("Geometric mean", f"{summary.geometric_mean:.2f}", "best peer ÷ Tidegate, over all rows"),
        ("Worst row", f"{worst.ratio:.2f}", f"{worst.cell}, {_size(worst)}, {worst.mode}"),
        failed,
    ]


def _size(row: Row) -> str:
    return "×".join(map(str, row.size))


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(cell, mode) for cell in dict.fromkeys(row.cell for row in rows) for mode in MODES]


def _grid(parts: Any) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'


def _ratios(rows: Sequence[Row], mode: str, plots: Plots) -> str:
    lines = {
        cell: [(_size(r), r.ratio) for r in rows if (r.cell, r.mode) == (cell, mode)]
        for cell in dict.fromkeys(row.cell for row in rows)
    }
    even = {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 1, "y1": 1, "line": {"color": GREY, "dash": "dot"}}
    figure = _figure(lines, "times as fast", shapes=[even])
    return plots.frame(figure, f"{mode.capitalize()}: best peer's time over Tidegate's, above 1 Tidegate is faster.")


def _times(rows: Sequence[Row], cell: str, mode: str, names: Sequence[str], plots: Plots) -> str:
    chosen = [row for row in rows if (row.cell, row.mode) == (cell, mode)]
    lines = {name: [(_size(row), row.times.get(name)) for row in chosen] for name in names}
    return plots.frame(_figure(lines, "ms"), f"{cell}, {mode}, by batch × units × steps.")


def _figure(lines: dict[str, list[tuple[str, float | None]]], y: str, **layout: Any) -> dict[str, Any]:
    """Draw a line of points for each name, over sizes, on a logarithmic scale; a name has one colour everywhere."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(name),
            "x": [size for size, _ in points],
            "y": [value for _, value in points],
            "line": {"color": colour, "width": 1.5},
        }
        for (name, points), colour in zip(lines.items(), _COLOURS * len(lines), strict=False)
        if any(value is not None for _, value in points)
    ]
    shown = {
        "height": 340,
        "margin": {"l": 8, "r": 12, "t": 48, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": _AXIS,
        "yaxis": {"type": "log", "title": {"text": y, "standoff": 8}, "automargin": True},
    }
    return {"data": data, "layout": {**shown, **layout}}


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    body: list[list[Cell]] = [
        [
            f"{row.cell}, {_size(row)}",
            row.mode,
            *(row.times.get(name) for name in names),
            row.ratio,
            row.backend,
            "; ".join((*row.wrong, *(f"{name} refuses: {why}" for name, why in row.refused.items()))),
        ]
        for row in rows
    ]
    heads = ["Cell, B×H×T", "", *names, "Best peer ÷ Tidegate", "Backend", "Note"]
    return table(heads, body, "Milliseconds, medians. Backend: what “auto” chose.")


def _first_calls(calls: Sequence[FirstCall]) -> str:
    if not calls:
        return "<p>Not measured.</p>"
    body: list[list[Cell]] = [[call.cell, call.backend, call.fresh, call.kept] for call in calls]
    heads = ["Cell", "Backend", "Nothing compiled before", "Compiled code on disk"]
    return table(heads, body, "Seconds that the first training pass of a new process takes beyond later ones.")


def _facts(machine: dict[str, Any]) -> list[tuple[str, object]]:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    others = [(name.capitalize(), figures_of(value)) for name, value in machine.items() if name != "versions"]
    return [("Versions", versions), *others]
