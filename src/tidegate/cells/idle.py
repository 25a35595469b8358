"""Noise that a cell was asked for and that its step never reads."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from tidegate.cells.base import Cell

_OPTIONS = {
    "input_mask": "variational_dropout of inputs",
    "hidden_mask": "variational_dropout of recurrent products",
    "candidate_mask": "recurrent_dropout",
    "weight_mask": "dropconnect",
}


class _Watched(dict[str, Any]):
    """What a step is given; `asked` are the names that it looked for."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self.asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)


def idle_noise(model: nn.Module) -> list[str]:
    """Return a note on each kind of noise that a cell of the model has a rate of, and that its step never reads.

    Cells that read frames, or more than x, are left out.
    """
    cells = [cell for cell in model.modules() if isinstance(cell, Cell) and not (cell.inputs or cell.space_sizes)]
    return list(dict.fromkeys(note for cell in cells for note in _notes(cell)))


@torch.no_grad()
def _notes(cell: Cell) -> list[str]:
    unheard = bool(cell._arguments[1].get("dropconnect")) and not cell.noise.weights  # no recurrent weights
    if not cell.noise.draws and not unheard:
        return []
    probe = copy.deepcopy(cell).train()
    rows, steps, whole = probe.masks()
    one_row = {name: probe.weight_ih.new_ones(1, width) for name, (width, _) in {**rows, **steps}.items()}
    given = _Watched(one_row | {name: probe.weight_ih.new_ones(shape) for name, (shape, _) in whole.items()})
    names = given.keys() & _OPTIONS.keys()
    if names:
        with probe.bound(given):
            projected = probe.project(probe.weight_ih.new_ones(1, probe.input_size))
        probe.advance(projected, probe.unpack(probe.initial_state(1)), given)
    idle = [_OPTIONS[name] for name in _OPTIONS if name in names - given.asked]
    idle += ["dropconnect"] if unheard else []
    return [f"{option} has no effect on {type(cell).__name__}: its step never reads it" for option in idle]
