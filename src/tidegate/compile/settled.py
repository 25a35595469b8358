"""Cells of which nothing was set anew since a call was prepared, and their parameters, read where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import getitem, is_
from typing import Any

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile import compiled
from tidegate.compile.call import Call
from tidegate.compile.native import Native
from tidegate.compile.trace import Found, Traced, UntraceableError, modules

Place = tuple[Mapping[str, Any], str]
"""A module's parameters, and the name of one."""

# Looked up once, and called for whole lists: a call may be so short that more would be felt.
_address, _is_dense = Tensor.data_ptr, Tensor.is_contiguous
_is_dispatched = torch._C._len_torch_dispatch_stack
_is_autocast, _functorch = torch._C._is_any_autocast_enabled, torch._C._functorch.peek_interpreter_stack
_is_compiling, _forward_mode = torch.compiler.is_compiling, torch.autograd.forward_ad


def is_watched() -> bool:
    """Whether something follows torch's operations, so that none may be done past it."""
    return _is_compiling() or _is_dispatched() > 0 or _is_autocast() or _functorch() is not None or carries_tangents()


def carries_tangents() -> bool:
    """Whether derivatives are taken in forward mode, which kernels have none for."""
    return _forward_mode._current_level >= 0


class Settled:
    """A layer's cells as they were, and where the parameters are that their kernels read."""

    def __init__(self, cells: Iterable[Cell], places: Sequence[Place]) -> None:
        self.cells = list(cells)
        self.dtype = self.cells[0].weight_ih.dtype
        self._last: tuple[list[Tensor], list[int]] = ([], [])
        self._seen = [(cell, cell.changes, cell.training, _as_lent(cell)) for cell in cells]
        self._owners = [owner for owner, _ in places]
        self._names = [name for _, name in places]
        self._shapes = [owner[name].shape for owner, name in places]

    def holds(self, cells: Iterable[Cell]) -> bool:
        """Whether these are the same cells, and nothing of them was set anew."""
        for cell, changes, training, lent in self._seen:
            if cell.changes != changes or cell.training is not training or (lent and not lent()):
                return False
        return list(cells) == self.cells

    def read(self, cells: Iterable[Cell]) -> tuple[list[Tensor], list[int]] | None:
        """Return the parameters and their addresses; None where they, or the cells, are not what they were."""
        if not self.holds(cells):
            return None
        parameters = list(map(getitem, self._owners, self._names))
        addresses = list(map(_address, parameters))
        if not all(map(_is_dense, parameters)):
            return None
        known, places = self._last
        if addresses != places or not all(map(is_, parameters, known)):
            if not all(map(self._suits, parameters, self._shapes)):
                return None
            self._last = parameters, addresses
        return parameters, addresses

    def _suits(self, parameter: Tensor, shape: torch.Size) -> bool:
        """Whether a parameter that is another than before, or lies elsewhere, is what the kernels read."""
        plain = type(parameter) in (Tensor, torch.nn.Parameter) and not parameter.is_neg()
        return plain and parameter.is_cpu and parameter.dtype is self.dtype and parameter.shape == shape


def kernels_of(cell: Cell, call: Call) -> tuple[Native, list[Place], list[Place]] | None:
    """Return what runs a call, and where the vectors and matrices are that it reads.

    None where the cell does not compile, reads weights that are computed, or has other sizes than when it was traced.
    """
    if compiled.refuses(call) is not None:
        return None
    found = compiled.traced_of(call)
    assert not isinstance(found, UntraceableError)
    traced, native = found
    vectors, matrices = _places(cell, traced, traced.vectors), _places(cell, traced, traced.matrices)
    if vectors is None or matrices is None:
        return None
    values = [owner[name] for owner, name in vectors + matrices]
    if [v.shape for v in values] != traced.shapes or not all(v.is_cpu for v in values):
        return None
    return native, vectors, matrices


def is_plain(cell: Cell) -> bool:
    """Whether a cell's kernel is all there is to it: nothing drawn, read beside x, or made by the cell around it."""
    if cell.inputs or cell._modules or (cell.training and cell.noise.draws):
        return False
    return type(cell).initial_state is Cell.initial_state and not cell.reads_out


def _as_lent(cell: Cell) -> Callable[[], bool] | None:
    """Return what tells whether the layer that owns a cell's weights still has the same, by name; None without one."""
    if cell.owner is None:
        return None
    keys = cell.owner._parameters.keys()
    names = frozenset(keys)
    return lambda: names == keys


def _places(cell: Cell, traced: Traced, numbers: Sequence[int]) -> list[Place] | None:
    """Return where the parameters of these numbers are found; None where one is computed or not dense."""
    owners, found = modules(cell), []
    for entry in traced.hoisted.entries:
        if not isinstance(entry, Found) or isinstance(entry.place, Tensor):
            return None
        owner, name = owners[entry.place[0]]._parameters, entry.place[1]
        value = owner.get(name)
        if value is None or not value.is_contiguous():
            return None
        found.append((owner, name))
    return [found[number] for number in numbers]
