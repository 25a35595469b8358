"""What a backend is asked to run."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.cells.noise import NOTHING, Given


class Call(NamedTuple):
    """One cell over one padded batch: all that any backend is told, checked and on one device.

    `x` [B, T, I]; `states`, one [B, ·] for each of the cell's, or None for its initial ones; `lengths` [B];
    `resets` [B, T]; `given`, what steps read beside (noise drawn, elapsed times). With `every_state` all states
    of all steps are asked for; with `recompute` what steps leave for their derivative is computed again, not kept.
    """

    cell: Cell
    x: Tensor
    states: tuple[Tensor, ...] | None = None
    lengths: Tensor | None = None
    resets: Tensor | None = None
    given: Given = NOTHING
    every_state: bool = False
    recompute: bool = False


class Run(NamedTuple):
    """What a backend gives back: outputs [B, T, O], states after each row's last step, and all states if asked for.

    `every` holds one [B, T, ·] for each state, zero in the padding.
    """

    outputs: Tensor
    states: tuple[Tensor, ...]
    every: tuple[Tensor, ...] = ()


Refusal: TypeAlias = Callable[[], str]
"""Words the reason why a backend cannot run a call."""
