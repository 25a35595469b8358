"""Where in a run the code of a plan stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llvmlite import ir


@dataclass(frozen=True)
class Moment:
    """Where in the sequence code stands: which step, how many rows are running, which states.

    `line` is where the first row's line stands among those computed ahead, or, backward, among the thread's own.
    """

    item: ir.Value
    time: ir.Value
    rows: ir.Value
    line: ir.Value
    current: Mapping[int, ir.Value]
    following: Mapping[int, ir.Value]


@dataclass(frozen=True)
class Here:
    """One vector of one row: the row in scratch and in the caller's memory, the first unit, which lanes are real."""

    row: ir.Value
    index: ir.Value
    unit: ir.Value
    mask: ir.Value
    whole: ir.Value
