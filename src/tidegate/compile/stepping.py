"""One step of a stack of cells at a time, by a compiled function that Python calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from tidegate.cells.base import Cell
from tidegate.compile.llvm import one_step, python
from tidegate.compile.llvm.host import host
from tidegate.compile.loop import MOST_FORMS
from tidegate.compile.prepared import Argument, Prepared, prepared
from tidegate.compile.settled import UNWATCHED, Settled, is_plain

MOST_ROWS = 32
"""Up to so many rows, products read the matrices as they stand; beyond, a run of one step is the better way."""

_NOBODY = object()


class Stepper:
    """One step of cells that feed each other, `batch` rows, for as long as nothing of the cells is set anew.

    Every state is one tensor [layers, B, ·], dense. Parameters are read where they stand when a step is run, so it
    always runs with them as they are.
    """

    def __init__(self, cells: Mapping[str, Cell], layers: Sequence[Prepared], batch: int) -> None:
        self.cells = list(cells.values())
        self.places = [place for layer in layers for place in layer.parameters]
        self.settled = Settled(self.cells, self.places)
        self.layers = layers
        first = self.cells[0]
        self.dtype = self.settled.dtype
        self.shape = torch.Size((batch, first.input_size))
        with torch.inference_mode(False):
            self.output = torch.empty(batch, first.state_sizes[0], dtype=self.dtype, device="cpu")
            self.begin = [
                torch.zeros(len(cells), batch, size, dtype=self.dtype, device="cpu") for size in first.state_sizes
            ]
        self._free: list[Taker] = []

    def fits(self, states: Sequence[Tensor]) -> bool:
        """Whether there are steps, and these are states [layers, B, ·] that they may overwrite."""
        if not self.layers or [s.shape for s in states] != [s.shape for s in self.begin]:
            return False
        if not all(type(s) is Tensor and s.dtype is self.dtype and s.is_cpu for s in states):
            return False
        return all(s.is_contiguous() and not s.is_neg() for s in states)

    def step(
        self, cells: Mapping[str, Cell], x: Tensor, state: Tensor | Sequence[Tensor] | None
    ) -> tuple[Tensor, ...] | None:
        """Step from `state`, a tensor or one for each; return the output and the new states.

        `cells` are the layer's as they are now. Return None, and touch nothing, where this cannot be done: a tensor is
        not plain and dense, of the weights' dtype and of the shape it must have, the cells are not what they were, or
        their parameters. Nothing may follow torch's operations.
        """
        if not self.layers:
            return None
        before: Sequence[Tensor]
        if state is None:
            before = self.begin
        elif len(self.begin) == 1:
            before = (state,)  # type: ignore[assignment]
        elif isinstance(state, list | tuple):
            before = state
        else:
            return None
        try:
            taker = self._free.pop()
        except IndexError:  # all are at work, in other threads
            taker = Taker(self)
        done: tuple[Tensor, ...] | None = taker.take(cells, x, *before)
        if done is None and taker.follows(cells):
            done = taker.take(cells, x, *before)
        self._free.append(taker)
        return done


class Taker:
    """What takes the steps of a `Stepper`, with the memory that kernels work in: for one thread at a time.

    `take(cells, x, *states)` does what `Stepper.step` does. With states to overwrite it is `take(cells, x)`, which
    returns the output alone; they are those that `Stepper.step` would take. It returns None, too, where anything
    follows torch's operations (outside of its compiler), or one of the `attributes` or `entries` of dictionaries, each
    an object and a name, is another than now.
    """

    def __init__(
        self,
        steps: Stepper,
        overwritten: Sequence[Tensor] = (),
        attributes: Sequence[tuple[object, str]] = (),
        entries: Sequence[tuple[Mapping[str, object], str]] = (),
    ) -> None:
        self._steps = steps
        self._arguments = [Argument(layer) for layer in steps.layers]
        self._parameters: list[Tensor] = []
        self._addresses: list[int] = []
        owners = [cell.owner._parameters for cell in steps.cells if cell.owner is not None]
        shapes = [state.shape for state in steps.begin]
        places = [state.data_ptr() for state in overwritten] or [0] * len(steps.begin)
        objects: dict[str, object] = {
            "Tensor": Tensor, "Exception": Exception, "True": True, "False": False, "None": None, "dtype": steps.dtype,
            "'dtype'": "dtype", "'shape'": "shape", "'is_cpu'": "is_cpu", "'nbytes'": "nbytes",
            "'changes'": "changes", "data_ptr": Tensor.data_ptr, "is_neg": Tensor.is_neg,
            "is_contiguous": Tensor.is_contiguous, "empty_like": torch.empty_like, "shape": steps.shape,
            "output": steps.output,
        }  # fmt: skip
        attributes = [*attributes, (forward_ad, "_current_level")]
        self._decides = attributes, list(entries)
        self._expected = expected = _found(*self._decides)
        lists: dict[str, Sequence[tuple[int, ...]]] = {
            "guards": [(id(function), id(returned)) for function, returned in UNWATCHED],
            "attributes": [(id(of), id(name), id(it)) for (of, name), it in zip(attributes, expected[0], strict=True)],
            "entries": [
                (id(names), id(name), 0 if it is _NOBODY else id(it))
                for (names, name), it in zip(entries, expected[1], strict=True)
            ],
            "owners": [(id(names), len(names)) for names in owners],
            "cells": [(id(cell), cell.changes) for cell in steps.cells],
            "parameters": [(id(names), id(name), id(_NOBODY), 0, 0) for names, name in steps.places],
            "states": [
                (id(like), id(shape), place, place, like[0].nbytes, 0)
                for like, shape, place in zip(steps.begin, shapes, places, strict=True)
            ],
            "layers": [(each.kernel, own.address) for each, own in zip(steps.layers, self._arguments, strict=True)],
        }
        # The table has addresses alone.
        self._kept = objects, owners, shapes, list(overwritten)
        self._table, begins = one_step.table(objects, lists)
        self._first = begins["parameters"]
        self.take: Callable[..., Any] = one_step.function(host(), self._table, in_place=bool(overwritten))
        self.follows({str(number): cell for number, cell in enumerate(steps.cells)})

    def holds(self) -> bool:
        """Whether attributes and entries are what they were."""
        both = zip(_found(*self._decides), self._expected, strict=True)
        return all(a is b for now, before in both for a, b in zip(now, before, strict=True))

    def follows(self, cells: Mapping[str, Cell]) -> bool:
        """Take the parameters from where they are now; return whether they are others than before, or elsewhere."""
        read = self._steps.settled.read(cells.values())
        if read is None:
            return False
        parameters, addresses = read
        if addresses is self._addresses and all(a is b for a, b in zip(parameters, self._parameters, strict=True)):
            return False
        self._parameters, self._addresses = parameters, addresses
        size = len(one_step.PARAMETER)
        for number, (parameter, address) in enumerate(zip(parameters, addresses, strict=True)):
            record = self._first + number * size
            self._table[record + one_step.PARAMETER.index("parameter")] = id(parameter)
            self._table[record + one_step.PARAMETER.index("address")] = address
            self._table[record + one_step.PARAMETER.index("bytes")] = parameter.nbytes
        first = 0
        for layer, argument in zip(self._steps.layers, self._arguments, strict=True):
            argument.reads(addresses[first : first + len(layer.parameters)])
            first += len(layer.parameters)
        return True


def _found(
    attributes: Sequence[tuple[object, str]], entries: Sequence[tuple[Mapping[str, object], str]]
) -> tuple[list[object], list[object]]:
    """Return what attributes are, and what stands in entries."""
    return [getattr(of, name) for of, name in attributes], [names.get(name, _NOBODY) for names, name in entries]


class Steppers:
    """The compiled steps of a layer, by number of rows."""

    def __init__(self) -> None:
        self._known: dict[int, Stepper] = {}
        self._last: Stepper | None = None

    def __reduce__(self) -> tuple[type[Steppers], tuple[()]]:
        return Steppers, ()

    def step(
        self, cells: Mapping[str, Cell], x: Tensor, state: Tensor | Sequence[Tensor] | None
    ) -> tuple[Tensor, ...] | None:
        """Run one step of the cells as `Stepper.step` does; nothing may follow torch's operations."""
        last = self._last  # another thread may put its own there
        done = None if last is None else last.step(cells, x, state)
        if done is None and isinstance(x, Tensor) and x.dim() == 2:
            last = self._last = self.of(cells, x.shape[0])
            done = last.step(cells, x, state)
        return done

    def of(self, cells: Mapping[str, Cell], batch: int) -> Stepper:
        """Return the steps of `batch` rows; where there are none, one that refuses everything."""
        known = self._known.get(batch)
        if known is None or not known.settled.holds(cells.values()):
            if len(self._known) >= MOST_FORMS:
                self._known.clear()
            known = self._known[batch] = _stepper(cells, batch)
        return known


def _stepper(cells: Mapping[str, Cell], batch: int) -> Stepper:
    """Prepare steps of `batch` rows; one without layers refuses everything.

    It has none where cells differ in size, do not compile, draw noise, read more than x, start from states or give
    outputs of their own making, have weights that are computed, or are lent some that no kernel reads.
    """
    first = next(iter(cells.values()))
    simple = python.IS_THERE and 0 < batch <= MOST_ROWS and all(_is_simple(cell, first) for cell in cells.values())
    layers = [prepared(cell, batch) for cell in cells.values()] if simple else []
    found = [layer for layer in layers if layer is not None]
    read = {(id(names), name) for layer in found for names, name in layer.parameters}
    lent = {
        (id(c.owner._parameters), name) for c in cells.values() if c.owner is not None for name in c.owner._parameters
    }
    return Stepper(cells, found if len(found) == len(layers) and lent <= read else [], batch)


def _is_simple(cell: Cell, first: Cell) -> bool:
    return cell.state_sizes == first.state_sizes and is_plain(cell)
