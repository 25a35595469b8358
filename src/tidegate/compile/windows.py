"""The windows of matrices' gradients: which sums over lines, Pᵀ Q, make which part of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch

from tidegate.compile.llvm.lines import AT_ONCE
from tidegate.compile.program import Outer, Program

IN_ORDER = torch.arange(AT_ONCE, device="cpu")
"""The lines that are torn at a time, one after the other."""

Place: TypeAlias = tuple[str, int | str, int, int]
"""Some units of a buffer, a line for each row of each step: its kind and name, the first unit, and how many."""


class Window(NamedTuple):
    """A product's share of a matrix's gradient: where P and Q stand, and which part of the matrix they make."""

    first: Place
    second: Place
    matrix: int
    row: int
    column: int


def windows_of(program: Program) -> list[Window]:
    """Return every window, in the order of the program's outer products."""
    return [_window(outer) for outer in program.outers]


def _window(outer: Outer) -> Window:
    f, gradient = outer.factor, (outer.kind, outer.name, outer.offset, outer.width)
    first, second = (gradient, outer.left) if f.turned else (outer.left, gradient)
    return Window(first, second, f.matrix, f.row, f.column)


def shapes_of(program: Program) -> list[torch.Size]:
    """Return the shapes of the matrices."""
    return list(program.traced.shapes[len(program.traced.vectors) :])


def line_width(program: Program, place: Place, saved: Sequence[int]) -> int:
    """Return how many units a line has in the buffer of a place; `saved` are the widths of what is saved."""
    kind, name, _, _ = place
    if kind == "saved":
        return saved[int(name)]
    return program.outer_width if kind == "outer" else program.traced.widths[str(name)]


def tile_matrices(windows: Sequence[Window], shapes: Sequence[torch.Size]) -> bool:
    """Whether each number of each matrix is of one window."""
    covered = [torch.zeros(shape, dtype=torch.int32, device="cpu") for shape in shapes]
    for w in windows:
        covered[w.matrix][w.row : w.row + w.first[3], w.column : w.column + w.second[3]] += 1
    return all(bool((each == 1).all()) for each in covered)
