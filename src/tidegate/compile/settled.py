"""Cells of which nothing was set anew since a call was prepared, and their parameters, read where they stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from tidegate.cells.base import Cell
from tidegate.compile import compiled
from tidegate.compile.attributes import cannot_change_unseen
from tidegate.compile.call import Call
from tidegate.compile.hoisted import Found, modules
from tidegate.compile.native import Native
from tidegate.compile.trace import Traced, UntraceableError

Place = tuple[Mapping[str, Any], str]
"""A module's parameters, and the name of one."""

# Looked up once, and called for whole lists: a call may be so short that more would be felt.
_address, _is_dense, _bytes = Tensor.data_ptr, Tensor.is_contiguous, attrgetter("nbytes")
_changes = attrgetter("changes")
_is_dispatched, _is_overridden = torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack
_is_autocast, _functorch = torch._C._is_any_autocast_enabled, torch._C._functorch.peek_interpreter_stack
_is_compiling, _forward_mode = torch.compiler.is_compiling, torch.autograd.forward_ad


UNWATCHED = ((_is_dispatched, 0), (_is_overridden, 0), (_is_autocast, False), (_functorch, None))
"""What functions of torch return where nothing follows its operations; `is_watched` says when else that is."""


def is_watched() -> bool:
    """Whether something follows torch's operations, so that none may be done past it."""
    followed = _is_compiling() or _is_dispatched() > 0 or _is_overridden() > 0 or _is_autocast()
    followed = followed or _functorch() is not None
    return followed or _forward_mode._current_level >= 0


class Settled:
    """A layer's cells as they were, and where the parameters are that their kernels read."""

    def __init__(self, cells: Iterable[Cell], places: Sequence[Place]) -> None:
        self.dtype = next(iter(cells)).weight_ih.dtype
        self._changes = list(map(_changes, cells))
        self._lent = [_as_lent(cell.owner) for cell in cells if cell.owner is not None]
        self._sources = _by_owner(places)
        self._shapes = [owner[name].shape for owner, name in places]
        size = self.dtype.itemsize
        self._bytes = [shape.numel() * size for shape in self._shapes]
        self._addresses: list[int] = []

    def holds(self, cells: Iterable[Cell]) -> bool:
        """Whether these are the same cells, and nothing of them was set anew."""
        return list(map(_changes, cells)) == self._changes and all(lent() for lent in self._lent)

    def read(self, cells: Iterable[Cell]) -> tuple[list[Tensor], list[int]] | None:
        """Return the parameters and their addresses; None where they, or the cells, are not what they were.

        The list of addresses is the same for as long as they are.
        """
        # What `holds` does, again: a run may be so short that a call more would be felt.
        if list(map(_changes, cells)) != self._changes or (self._lent and not all(lent() for lent in self._lent)):
            return None
        parameters: list[Tensor] = []
        try:
            for owner, values_of in self._sources:
                parameters += values_of(owner)
            addresses = list(map(_address, parameters))
        except (KeyError, TypeError):  # one was taken away, or None put in its place
            return None
        # What lies where a parameter lay is that one, as a rule; it may have been transposed or cut, though, or others
        # may have come there.
        known = self._addresses
        if addresses == known and list(map(_bytes, parameters)) == self._bytes and all(map(_is_dense, parameters)):
            return parameters, known
        if not all(map(self._suits, parameters, self._shapes)):
            return None
        self._addresses = addresses
        return parameters, addresses

    def _suits(self, parameter: Tensor, shape: torch.Size) -> bool:
        """Whether a parameter that is another than before, or lies elsewhere, is what the kernels read."""
        plain = type(parameter) in (Tensor, torch.nn.Parameter) and not parameter.is_neg()
        fits = parameter.dtype is self.dtype and parameter.shape == shape and parameter.is_contiguous()
        return plain and parameter.is_cpu and fits and (parameter.data_ptr() != 0 or parameter.numel() == 0)


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
    if cell.inputs or not cannot_change_unseen(cell) or (cell.training and cell.noise.draws):
        return False
    return type(cell).initial_state is Cell.initial_state and not cell.reads_out


def _by_owner(places: Sequence[Place]) -> list[tuple[Mapping[str, Any], Callable[[Mapping[str, Any]], Sequence[Any]]]]:
    """Return, for each run of places with one owner, the owner and what reads all of its places at once."""
    found = []
    for _, run in groupby(places, key=lambda place: id(place[0])):
        owners, names = zip(*run, strict=True)
        found.append((owners[0], itemgetter(*names) if len(names) > 1 else _alone(names[0])))
    return found


def _alone(name: str) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """Return what reads a single place: `itemgetter` would give the value itself."""
    return lambda owner: (owner[name],)


def _as_lent(owner: Module) -> Callable[[], bool]:
    """Return what tells whether the layer that owns a cell's weights still has the same, by name."""
    keys = owner._parameters.keys()
    names = frozenset(keys)
    return lambda: names == keys


def _places(cell: Cell, traced: Traced, numbers: Sequence[int]) -> list[Place] | None:
    """Return where the parameters of these numbers are found; None where one is computed or not dense."""
    owners, found = modules(cell), []
    for entry in traced.hoisted.entries:
        if not isinstance(entry, Found) or not isinstance(entry.place, tuple):
            return None
        owner, name = owners[entry.place[0]]._parameters, entry.place[1]
        value = owner.get(name)
        if value is None or not value.is_contiguous():
            return None
        found.append((owner, name))
    return [found[number] for number in numbers]
