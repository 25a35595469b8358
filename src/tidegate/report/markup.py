"""Pieces of a page as HTML. Every string that comes from the user's data is escaped here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

Cell = str | int | float | None
MISSING = "–"


def text(value: object) -> str:
    """Return a value as escaped text."""
    return escape(str(value))


def figures_of(value: Cell) -> str:
    """Return a number with four significant digits, or text as it is; a missing value is a dash."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if isinstance(value, float):
        short = f"{value:.4g}"
        return f"{value:,.0f}" if 1e4 <= abs(float(short)) < 1e15 else short
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def share(value: float) -> str:
    """Return a fraction as a percentage; only nothing is shown as 0 %, and only all as 100 %."""
    percent = 100 * value
    if not math.isfinite(percent):
        return MISSING
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2g} %" if 0 < percent < 1 else f"{min(percent, 99.9) if percent < 100 else percent:.1f} %"


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str) -> str:
    """Return a table that scrolls inside its own frame, under a caption that does not; numbers stand to the right."""
    body = [list(row) for row in rows]
    right = [all(_numeric(row[i]) for row in body) for i in range(len(heads))]
    side = [' class="n"' if r else ' class="why"' if h == "Note" else "" for r, h in zip(right, heads, strict=True)]
    top = "".join(f'<th scope="col"{s}>{text(h)}</th>' for h, s in zip(heads, side, strict=True))
    lines = []
    for row in body:
        first = f'<th scope="row"{side[0]}>{text(figures_of(row[0]))}</th>'
        rest = "".join(f"<td{s}>{text(figures_of(v))}</td>" for v, s in zip(row[1:], side[1:], strict=True))
        lines.append(f"<tr>{first}{rest}</tr>")
    return (
        f'<p class="caption">{text(caption)}</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _numeric(value: Cell) -> bool:
    return value is None or isinstance(value, int | float) or value.endswith(" %") or value == MISSING


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Return names and values, side by side."""
    return "<dl>" + "".join(f"<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>" for k, v in pairs) + "</dl>"


def cards(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Return large figures: name, value and what it means."""
    return (
        '<ul class="cards">'
        + "".join(
            f'<li><span class="name">{text(name)}</span><strong>{text(value)}</strong><span>{text(note)}</span></li>'
            for name, value, note in pairs
        )
        + "</ul>"
    )


def section(title: str, *parts: str) -> str:
    """Return a titled section."""
    return f"<section><h2>{text(title)}</h2>{''.join(parts)}</section>"


def folded(title: str, content: str) -> str:
    """Return content that opens on demand."""
    return f"<details><summary>{text(title)}</summary>{content}</details>"


class Plots:
    """Collects the figures of a page and leaves a frame where each one goes."""

    def __init__(self) -> None:
        self.figures: list[dict[str, Any]] = []

    def frame(self, figure: dict[str, Any], caption: str, *, wide: bool = False) -> str:
        """Keep the figure; return the frame it is drawn in, described for those who cannot see it."""
        number = len(self.figures)
        self.figures.append(figure)
        kind = ' class="wide"' if wide else ""
        height = int(figure["layout"]["height"])
        return (
            f'<figure{kind}><div id="figure-{number}" role="img" aria-label="{text(caption)}" '
            f'style="height:{height}px"></div>'
            f"<figcaption>{text(caption)}</figcaption></figure>"
        )


About = tuple[str, list[tuple[str, object]], Callable[[Plots], str]]
"""A report's title, facts of the run, and how the sections of its own kind are made."""
