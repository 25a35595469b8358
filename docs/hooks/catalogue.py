"""Writes every registered cell, with the equations of its docstring, into the page that asks for it."""

from __future__ import annotations

import inspect
from typing import Any

from tidegate.cells import CELLS, FRAME_CELLS, Cell

MARKER = "<!-- every cell -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the catalogue where a page has the marker; mkdocs calls this for every page."""
    return markdown.replace(MARKER, catalogue()) if MARKER in markdown else markdown


def catalogue() -> str:
    """Return a table of the cells by name, and below it each with its docstring, as Markdown."""
    cells = sorted([*CELLS.items(), *FRAME_CELLS.items()])
    rows = [f"| [`{name}`](#{name}) | `{cell.__name__}` | {_first_sentence(cell)} |" for name, cell in cells]
    table = ["| name | class | what it is |", "|---|---|---|", *rows]
    return "\n".join([*table, "", *(_section(name, cell) for name, cell in cells)])


def _section(name: str, cell: type[Cell]) -> str:
    reads = f", reads {_names(cell.inputs)} beside x" if cell.inputs else ""
    says = f"`{cell.__module__}.{cell.__name__}`: gates {_names(cell.gates)}; states {_names(cell.states)}{reads}."
    return f"## {name}\n\n{says}\n\n{inspect.getdoc(cell)}\n"


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _first_sentence(cell: type[Cell]) -> str:
    first = (inspect.getdoc(cell) or "").split("\n\n")[0].replace("\n", " ")
    return first.split(": `")[0].rstrip(".") + "."
