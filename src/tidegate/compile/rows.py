"""Rows as the tracer sees them: one node, or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from tidegate.compile.graph import Factor, Graph, Node


class UnsupportedError(Exception):
    """Why an operation does not compile as it was called."""


@dataclass(frozen=True)
class Row:
    """The value of a tensor [B, width], in pieces; [B] where it is `flat`."""

    pieces: tuple[Node, ...]
    flat: bool = False

    @property
    def width(self) -> int:
        return sum(piece.width for piece in self.pieces)

    @property
    def cuts(self) -> list[int]:
        """Where pieces begin, and the end."""
        cuts = [0]
        for piece in self.pieces:
            cuts.append(cuts[-1] + piece.width)
        return cuts

    def window(self, graph: Graph, offset: int, width: int) -> Node:
        """Return numbers of this row that lie within one piece."""
        start = 0
        for piece in self.pieces:
            if start <= offset and offset + width <= start + piece.width:
                return graph.window(piece, offset - start, width)
            start += piece.width
        raise UnsupportedError("a window that crosses pieces")


@dataclass(frozen=True)
class Matrix:
    """A window of a matrix that depends on parameters alone, [rows, columns]; a vector too where it has one row."""

    factor: Factor
    shape: tuple[int, int]
    vector: Row | None = None


Value: TypeAlias = Row | Matrix | float


def as_row(graph: Graph, value: Value) -> Row:
    """Return a number as a row, and a row as it is."""
    if isinstance(value, Row):
        return value
    if isinstance(value, Matrix) and value.vector is not None:
        return value.vector
    if isinstance(value, bool | int | float):
        return Row((graph.const(float(value)),))
    raise UnsupportedError(f"expected rows, vectors or numbers, got {value!r}")


def segments(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Return offset and width of the finest pieces of rows that go together; rows of width 1 fit any."""
    widths = {row.width for row in rows} - {1}
    if len(widths) > 1:
        raise UnsupportedError(f"rows of the widths {sorted(widths)} do not go together")
    cuts = sorted({cut for row in rows if row.width in widths for cut in row.cuts} or {0, 1})
    return [(a, b - a) for a, b in pairwise(cuts)]


def each(graph: Graph, op: str, *values: Value) -> Row:
    """Apply an elementwise operation to rows and numbers."""
    rows = [as_row(graph, v) for v in values]
    if len({row.flat for row in rows if row.width > 1 or row.flat}) > 1:
        raise UnsupportedError("a tensor [B] beside one [B, width]; keep the last axis with keepdim=True")
    pieces = [
        graph.apply(op, *(row.pieces[0] if row.width == 1 else row.window(graph, *segment) for row in rows))
        for segment in segments(rows)
    ]
    return Row(tuple(pieces), any(row.flat for row in rows))


def reduce(graph: Graph, op: str, row: Row) -> Node:
    """Return the sum or the largest of a row."""
    join = "add" if op == "sum" else "maximum"
    total, *rest = [graph.reduce(op, piece) for piece in row.pieces]
    for part in rest:
        total = graph.apply(join, total, part)
    return total


def multiply(graph: Graph, v: Row, matrix: Matrix) -> Row:
    """Return `v M`, a product for each piece of `v`."""
    terms = []
    for start, piece in zip(v.cuts, v.pieces, strict=False):
        factor = matrix.factor
        moved = (
            factor._replace(column=factor.column + start) if factor.turned else factor._replace(row=factor.row + start)
        )
        terms.append((piece, moved))
    return Row((graph.product(terms, matrix.shape[1]),))
