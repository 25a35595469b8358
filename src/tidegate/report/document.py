"""What every page shares: one HTML file with its style, its figures and the script that draws them."""

from __future__ import annotations

import json

from tidegate.report.figures import plotly_script
from tidegate.report.markup import Plots, text
from tidegate.report.style import CSS, SCRIPT


def document(title: str, heading: str, lead: str, body: str, plots: Plots) -> str:
    """Return a whole page, which opens offline; `lead` and `body` are HTML, title and heading plain text."""
    # "<" would let a label close the script.
    described = json.dumps(plots.figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{CSS}</style></head><body><header><h1>{text(heading)}</h1><p>{lead}</p>"
        "<noscript><p>Figures need JavaScript; tables do without.</p></noscript></header>"
        f"<main>{body}</main><footer>Written by Tidegate</footer><script>{plotly_script()}</script>"
        f"<script>const FIGURES = {described};{SCRIPT}</script></body></html>\n"
    )
