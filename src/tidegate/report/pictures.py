"""What to show of each task: its own figures and tables, measured on the whole validation part."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.data.loader import Forecasts as Windows
from tidegate.data.loader import Loader
from tidegate.data.spans import Spans
from tidegate.report import figures
from tidegate.report.evidence import Example, Forecasts, forecasts, numbers
from tidegate.report.markup import Cell, Plots, folded, share, table
from tidegate.tasks.base import Task
from tidegate.tasks.classification import Classification, ConfusionCounts, LabelCounts, MultiLabel
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Network
from tidegate.tasks.regression import IntervalSums, Regression
from tidegate.train.evaluation import evaluate

_POINTS, _TARGETS, _BINS = 2000, 3, 40


def pictures(network: Network, valid: Loader | Spans, task: Task, plots: Plots) -> str:
    """Return the task's part of the page."""
    if isinstance(task, Classification):
        _, found = evaluate(network, valid, "drawing the report")
        assert isinstance(found, ConfusionCounts)
        return _classes(found, plots, "steps" if task.per_step else "sequences")
    if isinstance(task, MultiLabel):
        _, labels = evaluate(network, valid, "drawing the report")
        assert isinstance(labels, LabelCounts)
        return _labels(labels)
    assert isinstance(valid, Loader)
    if isinstance(task, Regression):
        return _numbers(*numbers(network, valid, task), task, plots)
    if isinstance(task, Forecasting):
        return _forecasts(forecasts(network, valid, task), valid, task, plots)
    raise TypeError(f"{type(task).__name__} has no pictures")


def _classes(found: ConfusionCounts, plots: Plots, things: str) -> str:
    matrix, names = found.matrix.numpy(), [str(c) for c in found.classes]
    total, commonest = int(matrix.sum()), int(matrix.sum(1).max())
    drawn = f"the {figures.MOST_CLASSES} most frequent of " if len(names) > figures.MOST_CLASSES else ""
    caption = (
        f"Confusion matrix of all {total:,} validation {things}, {drawn}{len(names)} classes. "
        "Each row is a true class; the stronger the blue of a cell, the larger its share of that row. "
        f"Naming the most frequent class each time would be right in {share(commonest / max(total, 1))}."
    )
    each = found.per_class()
    order = np.argsort(-each["support"], kind="stable")
    rows: list[list[Cell]] = [
        [names[i], *(float(each[k][i]) if each["support"][i] else None for k in ("precision", "recall", "f1")),
         int(each["support"][i]), share(float(each["support"][i]) / max(total, 1))]
        for i in order
    ]  # fmt: skip
    heads = ["Class", "Precision", "Recall", "F1", "True " + things, "Share"]
    keep = figures.most_frequent(matrix)
    counts: list[list[Cell]] = [[names[i], *(int(matrix[i, k]) for k in keep)] for i in keep]
    return (
        plots.frame(figures.confusion(matrix, names), caption, wide=True)
        + folded("The matrix in numbers", table(["True", *(names[k] for k in keep)], counts, "Predicted class, counts"))
        + table(heads, rows, "Every class, most frequent first; a dash where the validation part has none of it")
    )


def _labels(found: LabelCounts) -> str:
    each = found.per_label()
    rows: list[list[Cell]] = [
        [name, *(float(each[k][i]) if each["support"][i] else None for k in ("precision", "recall", "f1")),
         int(each["support"][i]), share(each["support"][i] / max(found.count, 1)), int(each["guessed"][i])]
        for i, name in enumerate(found.labels)
    ]  # fmt: skip
    heads = ["Label", "Precision", "Recall", "F1", "True", "Share", "Predicted"]
    return table(heads, rows, f"Every label on all {found.count:,} validation sequences, at a probability of 0.5")


def _numbers(truth: np.ndarray, guess: np.ndarray, found: IntervalSums, task: Regression, plots: Plots) -> str:
    parts = []
    for i, name in enumerate(task.targets[:_TARGETS]):
        finite = np.isfinite(guess[:, i] - truth[:, i])
        if finite.any():
            parts += _target(truth[finite, i], guess[finite, i], int((~finite).sum()), name, plots)
    each = found.per_target()
    rows: list[list[Cell]] = [[name, *(float(v[i]) for v in each.values())] for i, name in enumerate(task.targets)]
    heads = ["Target", "Mean absolute error", "Root mean square error", "Mean error", "R²"]
    return _grid(parts) + table(heads, rows, "Every target, in its own units")


def _target(y: np.ndarray, p: np.ndarray, left_out: int, name: str, plots: Plots) -> list[str]:
    """Draw predictions over truths, and their errors, all finite."""
    step, error = -(-len(y) // _POINTS), p - y
    some = f"one in {step} of the " if step > 1 else "all "
    less = f" {left_out:,} more are not finite and not drawn." if left_out else ""
    caption = f"{name}: prediction over truth, {some}{len(y):,} validation sequences. On the dotted line both agree."
    over = plots.frame(figures.scatter(y[::step], p[::step], name), caption + less)
    counts, edges = np.histogram(error, bins=_edges(error))
    errors = figures.bars(edges, counts, f"Prediction − truth, {name}", "Sequences", 340)
    caption = f"{name}: errors of all {len(y):,} validation sequences. Right of 0 the model says too much."
    return [over, plots.frame(errors, caption + less)]


def _edges(values: np.ndarray) -> np.ndarray:
    """Return equal bins over finite values, wider than rounding even where all values are the same."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or size == 0:
        low, high = low - max(1e-6 * size, 0.5), high + max(1e-6 * size, 0.5)
    return np.linspace(low, high, min(_BINS, max(5, len(values) // 5)) + 1)


def _forecasts(found: Forecasts, valid: Loader, task: Forecasting, plots: Plots) -> str:
    names = task.targets[:_TARGETS]
    parts = [_example(e, i, name, valid, task, plots) for i, name in enumerate(names) for e in found.examples]
    mine, naive = found.model.by_target(), found.naive.by_target()
    rows: list[list[Cell]] = [
        [name, float(m), float(n), float(m / n) if n > 0 else None]
        for name, m, n in zip(task.targets, mine, naive, strict=True)
    ]
    heads = ["Target", "Mean absolute error", "Repeating the last value", "Ratio"]
    shown = f"Forecasts of {len(found.examples)} of {found.windows:,} validation windows, evenly spread"
    more = f", for the first {_TARGETS} of {len(task.targets)} targets" if len(task.targets) > _TARGETS else ""
    whole = table(heads, rows, "Every target, in its own units; a ratio below 1 beats the last value")
    return f"<p>{shown}{more}.</p>" + _grid(parts) + _steps(found, task, plots) + whole


def _steps(found: Forecasts, task: Forecasting, plots: Plots) -> str:
    """Draw the errors by step ahead, with their numbers to unfold."""
    mine, naive = found.model.by_step(), found.naive.by_step()
    lines: dict[str, np.ndarray] = {}
    for i, name in enumerate(task.targets[:_TARGETS]):
        lines |= {name: mine[:, i], f"{name} (last value)": naive[:, i]}
    caption = (
        f"Mean absolute error by step ahead over all {found.windows:,} validation windows; "
        "dashed: repeating the last known value."
    )
    rows: list[list[Cell]] = [[s + 1, *(float(v[s]) for v in lines.values())] for s in range(task.horizon)]
    numbers = table(["Steps ahead", *lines], rows, "Mean absolute error by step ahead")
    drawn = plots.frame(figures.by_step(lines, "Mean absolute error"), caption, wide=True)
    return drawn + folded("Every step ahead in numbers", numbers)


def _example(example: Example, i: int, name: str, valid: Loader, task: Forecasting, plots: Plots) -> str:
    shown = min(len(example.past), max(2 * task.horizon, 24))
    times, series, label = _times(valid, example.window, shown, task.horizon)
    past = {"x": times[:shown], "y": figures.plain(example.past[-shown:, i])}
    # The truth goes on from the look-back, so both lines begin at the last known step.
    ahead = times[shown - 1 :]
    join = [float(example.past[-1, i])]
    truth = {"x": ahead, "y": figures.plain(np.array(join + example.truth[:, i].tolist()))}
    guess = {"x": times[shown:], "y": figures.plain(example.guess[:, i, 0])}
    several = len(task.quantiles) > 1
    band = (example.guess[:, i, 1], example.guess[:, i, -1]) if several else None
    low, high = (f"{100 * q:g} %" for q in (min(task.quantiles, default=0), max(task.quantiles, default=0)))
    span = f", interval from the {low} to the {high} quantile" if several else ""
    caption = f"{name}{series}: {task.horizon} steps from {times[shown]}{span}."
    heads = [label, "Truth", "Forecast", *(f"{100 * q:g} % quantile" for q in sorted(task.quantiles))]
    rows: list[list[Cell]] = [
        [str(t), float(y), *map(float, g)]
        for t, y, g in zip(times[shown:], example.truth[:, i], example.guess[:, i], strict=True)
    ]
    drawn = plots.frame(figures.forecast(past, truth, guess, band, name, label), caption)
    return f"<div>{drawn}{folded('In numbers', table(heads, rows, caption))}</div>"


def _times(valid: Loader, window: int, past: int, horizon: int) -> tuple[list[Any], str, str]:
    """Return the times of a window's steps, in words which series it is of, and what the axis shows."""
    maker = valid.maker
    assert isinstance(maker, Windows)
    source, there = maker.encoded.table, maker.windows.at(np.array([window]))
    series = f", {source.id_name} {source.ids[int(there.sequence[0])]}" if source.id_name else ""
    origin = int(there.origin[0])
    stop = min(origin + horizon, int(there.last[0]))
    if source.time_name is None or stop < origin + horizon:
        first = origin - int(there.first[0])
        return list(range(first - past, first + horizon)), series, "Step"
    values = source.read(source.time_name, origin - past, stop)
    if source.columns[source.time_name].type != "timestamp":
        whole = bool((values == np.round(values)).all())
        return (values.astype(np.int64) if whole else values).tolist(), series, source.time_name
    moments = values.astype("datetime64[us]")
    unit = "D" if (moments == moments.astype("datetime64[D]")).all() else "s"
    return [str(m).replace("T", " ") for m in moments.astype(f"datetime64[{unit}]")], series, source.time_name


def _grid(parts: list[str]) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'
