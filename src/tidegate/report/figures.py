"""Figures as plain plotly descriptions (data and layout), and plotly itself for the page to carry."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape as escaped
from typing import Any

import numpy as np

Figure = dict[str, Any]
BLUE, ORANGE, GREEN, PURPLE, GREY = "#2f7fd6", "#e07b00", "#1a9e77", "#a05fc9", "#8a93a0"
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
MOST_CLASSES, _MOST_COUNTS = 60, 12


def plotly_script() -> str:
    """Return the whole of plotly.js."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def escape(label: str) -> str:
    """Escape what plotly would read as markup. It knows no entity for quotes, and they are harmless in a text."""
    return escaped(label, quote=False)


def _figure(data: list[Figure], x: str, y: str, height: int = 300, **layout: Any) -> Figure:
    axes = {
        name: {"title": {"text": escape(title), "standoff": 8}, "automargin": True}
        for name, title in (("xaxis", x), ("yaxis", y))
    }
    for name in axes:
        axes[name].update(layout.pop(name, {}))
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    named = any("name" in trace for trace in data)
    margin = {"l": 8, "r": 12, "t": 36 if named else 8, "b": 8}
    shown = {"height": height, "margin": margin, "legend": legend, "showlegend": named}
    return {"data": data, "layout": {**shown, **axes, **layout}}


def plain(values: Any) -> list[Any]:
    """Return an array as a list with None for what is not finite."""
    array = np.asarray(values)
    if array.ndim > 1:
        return [plain(row) for row in array]
    return [v if math.isfinite(v) else None for v in array.tolist()]


def curves(lines: Mapping[str, Sequence[float]], epochs: Sequence[int], y: str, best: int | None) -> Figure:
    """Draw one line per name over the epochs, and where the best epoch is."""
    mode = "lines+markers" if len(epochs) < 30 else "lines"
    data = [
        {
            "type": "scatter",
            "mode": mode,
            "name": escape(name),
            "x": list(epochs),
            "y": plain(np.array(values, float)),
            "line": {"color": colour, "width": 2},
        }
        for (name, values), colour in zip(lines.items(), _COLOURS, strict=False)
    ]
    mark = {
        "type": "line",
        "x0": best,
        "x1": best,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": GREY, "width": 1, "dash": "dot"},
    }
    ticks: Figure = {"tickmode": "linear", "dtick": 1} if len(epochs) <= 10 else {}
    return _figure(data, "Epoch", y, xaxis=ticks, shapes=[] if best is None else [mark])


def rate_curve(rates: Sequence[float], losses: Sequence[float], suggested: float | None) -> Figure:
    """Draw the loss over the learning rate, and the rate that is suggested."""
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": list(rates),
        "y": plain(losses),
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "rate %{x:.2e}<br>loss %{y:.4g}<extra></extra>",
    }
    mark = {
        "type": "line",
        "x0": suggested,
        "x1": suggested,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": ORANGE, "width": 1, "dash": "dot"},
    }
    axis = {"type": "log", "exponentformat": "power"}
    return _figure([line], "Learning rate", "Loss", xaxis=axis, shapes=[] if suggested is None else [mark])


def over_lengths(lines: Mapping[str, Sequence[float | None]], lengths: Sequence[int]) -> Figure:
    """Draw mebibytes over the length of a text, both on logarithmic axes."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": escape(name),
            "x": list(lengths),
            "y": [None if value is None else max(value, 1.0) for value in values],
            "line": {"color": colour, "width": 2},
        }
        for (name, values), colour in zip(lines.items(), _COLOURS, strict=False)
    ]
    log = {"type": "log", "exponentformat": "SI"}
    return _figure(data, "Tokens", "MiB", 360, xaxis=log, yaxis={**log, "rangemode": "tozero"})


def most_frequent(matrix: np.ndarray) -> np.ndarray:
    """Return the indices of the classes that are drawn, in order: all, or the most frequent ones of many."""
    return np.sort(np.argsort(-matrix.sum(1), kind="stable")[:MOST_CLASSES])


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix, each row coloured as shares of its true class; many classes: the most frequent ones."""
    keep = most_frequent(matrix)
    counts = matrix[np.ix_(keep, keep)]
    shares = counts / np.maximum(matrix.sum(1)[keep], 1)[:, None]
    names = [escape(classes[i]) for i in keep]
    few = len(keep) <= _MOST_COUNTS
    heat = {
        "type": "heatmap", "x": names, "y": names, "z": plain(shares), "customdata": counts.tolist(),
        "zmin": 0, "zmax": 1, "xgap": 1, "ygap": 1,
        "colorscale": [[0, "rgba(47,127,214,0.06)"], [1, "rgba(47,127,214,1)"]],
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "len": 0.9},
        "hovertemplate": "true %{y}<br>predicted %{x}<br>%{customdata} (%{z:.1%} of this class)<extra></extra>",
    }  # fmt: skip
    if few:
        heat.update({"text": counts.tolist(), "texttemplate": "%{text}"})
    size = int(np.clip(140 + 30 * len(keep), 260, 760))
    # The text "1" must stay a label: plotly would read it as a number.
    y = {"type": "category", "autorange": "reversed", "showgrid": False}
    return _figure(
        [heat], "Predicted class", "True class", size, xaxis={"type": "category", "showgrid": False}, yaxis=y
    )


def alignment(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> Figure:
    """Draw attention weights [T, S]: target tokens down, source tokens across."""
    # Tokens may repeat, and plotly would take equal names for one row: they are drawn by number and named by ticks.
    shown = [[escape(token.strip() or "␣") for token in tokens] for tokens in (source, target)]
    heat = {
        "type": "heatmap", "z": plain(weights), "zmin": 0, "zmax": 1, "xgap": 1, "ygap": 1,
        "colorscale": [[0, "rgba(47,127,214,0.04)"], [1, "rgba(47,127,214,1)"]],
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "len": 0.9},
        "customdata": [[f"{t} → {s}" for s in shown[0]] for t in shown[1]],
        "hovertemplate": "%{customdata}: %{z:.1%}<extra></extra>",
    }  # fmt: skip
    across, down = ({"tickvals": list(range(len(s))), "ticktext": s, "showgrid": False} for s in shown)
    size = int(np.clip(120 + 24 * len(target), 240, 900))
    return _figure(
        [heat],
        "Source",
        "Translation",
        size,
        xaxis={**across, "side": "bottom"},
        yaxis={**down, "autorange": "reversed"},
    )


def bars(edges: np.ndarray, counts: np.ndarray, x: str, y: str, height: int = 260) -> Figure:
    """Draw a histogram from its bin edges [n + 1] and counts [n]."""
    centre, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    bar = {
        "type": "bar",
        "x": plain(centre),
        "y": plain(counts),
        "width": plain(width),
        "marker": {"color": BLUE},
        "hovertemplate": "%{x:.4g}: %{y}<extra></extra>",
    }
    return _figure([bar], x, y, height, bargap=0.02)


def scatter(truth: np.ndarray, guess: np.ndarray, name: str) -> Figure:
    """Draw predictions over truths, with the line on which a perfect model lies."""
    ends = [float(min(truth.min(), guess.min())), float(max(truth.max(), guess.max()))]
    points = {
        "type": "scatter",
        "mode": "markers",
        "name": "Prediction",
        "x": plain(truth),
        "y": plain(guess),
        "marker": {"color": BLUE, "size": 6, "opacity": 0.55},
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "Perfect",
        "x": ends,
        "y": ends,
        "line": {"color": GREY, "dash": "dot"},
        "hoverinfo": "skip",
    }
    return _figure([line, points], f"True {name}", f"Predicted {name}", 340)


def forecast(past: Figure, truth: Figure, guess: Figure, band: tuple[Any, Any] | None, name: str, x: str) -> Figure:
    """Draw one forecast over the truth. `past`, `truth`, `guess` hold x and y; `band` the lower and upper quantile."""
    data: list[Figure] = []
    if band is not None:
        edge = {"type": "scatter", "mode": "lines", "x": guess["x"], "line": {"width": 0}, "hoverinfo": "skip"}
        data += [
            {**edge, "y": plain(band[0]), "showlegend": False},
            {**edge, "y": plain(band[1]), "fill": "tonexty", "fillcolor": "rgba(224,123,0,0.22)", "name": "Interval"},
        ]
    data += [
        {"type": "scatter", "mode": "lines", "name": "Look-back", **past, "line": {"color": GREY, "width": 1.5}},
        {"type": "scatter", "mode": "lines+markers", "name": "Truth", **truth, "line": {"color": BLUE, "width": 2},
         "marker": {"size": 5}},
        {"type": "scatter", "mode": "lines+markers", "name": "Forecast", **guess,
         "line": {"color": ORANGE, "width": 2}, "marker": {"size": 5}},
    ]  # fmt: skip
    return _figure(data, x, name, 320, xaxis={"nticks": 5, "tickangle": 0})


def by_step(lines: Mapping[str, np.ndarray], y: str) -> Figure:
    """Draw errors over the step ahead; names that end in "(last value)" are the yardstick, dashed."""
    data = []
    for i, (name, values) in enumerate(lines.items()):
        colour, dash = _COLOURS[(i // 2) % len(_COLOURS)], "dash" if i % 2 else "solid"
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(values) <= 30 else "lines",
                "name": escape(name),
                "x": list(range(1, len(values) + 1)),
                "y": plain(values),
                "line": {"color": colour, "dash": dash, "width": 2},
            }
        )
    return _figure(data, "Steps ahead", y, 320, yaxis={"rangemode": "tozero"})
