"""The benchmark as one HTML page: what had to hold, a table and the curves of every task."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.report.document import document
from tidegate.report.figures import BLUE, GREEN, GREY, ORANGE, PURPLE, escape
from tidegate.report.markup import Cell, Plots, cards, section, table
from trials import show
from trials.arms import Task
from trials.records import Record, is_number
from trials.verdict import Checked, Verdict

TITLE = "Techniques, OFF and ON"
_LEAD = (
    "Same seeds and same budget on both sides; a run stops at the goal, where there is one. Thin lines are runs, "
    "figures are the best of a run's evaluations on the validation part; test parts were looked at once, after "
    "training. A difference counts where Student's t over the seeds finds one of 5 %."
)
USUAL = 0.98
"""The share of the figures that is always shown."""
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, "#c2405a", "#3aa6b9", "#8d6e3f")


def page(
    tasks: Mapping[str, Task],
    rows: Mapping[str, Sequence[Verdict]],
    checks: Sequence[Checked],
    runs: Sequence[Record],
) -> str:
    """Return the page as text."""
    plots = Plots()
    body = _checks(checks, runs)
    for name, each in rows.items():
        mine = [r for r in runs if r.task == name]
        if mine:
            title = f"{tasks[name].problem.about} ({name})"
            body += section(title, _rows(each), _curves(tasks[name], mine, plots), _arms(tasks[name], mine))
    return document(TITLE, TITLE, _LEAD, body, plots)


def _checks(checks: Sequence[Checked], runs: Sequence[Record]) -> str:
    held = sum(c.holds is True for c in checks)
    seconds = sum(r.cpu_seconds for r in runs)
    top = cards(
        [
            ("What must hold", f"{held} of {len(checks)}", "holds"),
            ("Runs", str(len(runs)), f"{sum(r.failed is not None for r in runs)} diverged"),
            ("Processor time", f"{seconds / 60:.0f} min", "all runs together"),
        ]
    )
    body: list[list[Cell]] = [[c.task, c.says, show.HOLDS[c.holds].lower(), c.figures] for c in checks]
    heads = ["Task", "What must hold", "", "Figures, by seed"]
    return top + (section("What must hold", table(heads, body, "Figures are those of each seed.")) if body else "")


def _rows(rows: Sequence[Verdict]) -> str:
    body: list[list[Cell]] = [
        [v.row.technique, show.side(v.off), show.side(v.on), _gain(v), v.says, v.row.published] for v in rows
    ]
    heads = ["Technique", "OFF", "ON", "Gain", "", "Published"]
    caption = "Mean best figure (runs that reached the goal, median steps to it); mean gain of ON ± its standard error."
    return table(heads, body, caption) if body else ""


def _gain(verdict: Verdict) -> str:
    error = "" if verdict.error is None else f" ± {verdict.error:.2g}"
    return f"{verdict.gain:+.3g}{error}"


def _arms(task: Task, runs: Sequence[Record]) -> str:
    body: list[list[Cell]] = []
    for name in dict.fromkeys(r.arm for r in runs):
        mine = [r for r in runs if r.arm == name]
        tests = [r.test for r in mine if r.test is not None]
        failed = sum(r.failed is not None for r in mine)
        seconds = statistics.fmean(r.cpu_seconds for r in mine)
        best, test = statistics.fmean(r.best for r in mine), statistics.fmean(tests) if tests else None
        body.append([name, task.parameters(name), best, test, failed, seconds])
    heads = ["Arm", "Parameters", "Validation", "Test", "Diverged", "Seconds a run"]
    return table(heads, body, "Means over the seeds; seconds of one thread.")


def _curves(task: Task, runs: Sequence[Record], plots: Plots) -> str:
    problem = task.problem
    data: list[dict[str, Any]] = []
    colours: dict[str, str] = {}
    for run in runs:
        first = run.arm not in colours
        colour = colours.setdefault(run.arm, _COLOURS[len(colours) % len(_COLOURS)])
        points = [(steps, value) for steps, value, _ in run.curve if is_number(value)]
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(run.arm),
                "legendgroup": escape(run.arm),
                "showlegend": first,
                "x": [steps for steps, _ in points],
                "y": [value for _, value in points],
                "line": {"color": colour, "width": 1.5},
                "opacity": 0.75,
                "hovertemplate": f"seed {run.seed}, step %{{x}}: %{{y:.4g}}",
            }
        )
    longest = max((run.curve[-1][0] for run in runs if run.curve), default=1)
    lines = [("chance", problem.chance, "dot"), ("goal", problem.goal, "dash")]
    data += [_level(name, value, dash, longest) for name, value, dash in lines if value is not None]
    layout = _layout(problem.figure)
    if bounds := _bounds([value for each in data for value in each["y"]]):
        layout["yaxis"]["range"] = bounds
    return plots.frame({"data": data, "layout": layout}, f"{problem.figure} over steps.", wide=True)


def _bounds(values: Sequence[float]) -> list[float] | None:
    """Return what to show of figures of which a few are so large that nothing would be seen of the others."""
    if not values:
        return None
    ordered = sorted(values)
    least, most = ordered[0], ordered[int(USUAL * (len(ordered) - 1))]
    return [least, most + (most - least) / 10] if ordered[-1] - least > 3 * (most - least) > 0 else None


def _level(name: str, value: float, dash: str, longest: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{name}, {value:.4g}",
        "x": [0, longest],
        "y": [value, value],
        "line": {"color": GREY, "width": 1, "dash": dash},
        "hoverinfo": "skip",
    }


def _layout(figure: str) -> dict[str, Any]:
    return {
        "height": 380,
        "margin": {"l": 8, "r": 12, "t": 60, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
        "xaxis": {"title": {"text": "Step", "standoff": 8}, "automargin": True},
        "yaxis": {"title": {"text": escape(figure), "standoff": 8}, "automargin": True},
    }
