"""One cell's step, prepared for a number of rows: what its kernel is told, and what of it changes."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import torch

from tidegate.cells.base import Cell
from tidegate.compile.call import Call
from tidegate.compile.loop import Batch
from tidegate.compile.memory import LINE, aligned, fresh
from tidegate.compile.settled import Place, kernels_of


@dataclass(frozen=True)
class Prepared:
    """What one cell's kernel is told: numbers that stay, and those that a step writes over the first of them.

    Those are two counters, the addresses of input and output, and of the states before and after; then come those of
    the parameters, from the slot `reads` on. `kernel` is where it stands, `rows` is kept for the memory that the
    numbers point to.
    """

    kernel: int
    numbers: array[int]
    reads: int
    size: int
    scratch: int
    parameters: list[Place]
    rows: Batch


class Argument:
    """One layer's argument, at an address, and the memory that its kernel works in: for one thread at a time."""

    def __init__(self, layer: Prepared) -> None:
        self._memory = fresh((layer.size + LINE,), torch.uint8)
        self._numbers = layer.numbers[:]
        self._numbers[layer.scratch] = aligned(self._memory)
        self._parameters = slice(layer.reads, layer.reads + len(layer.parameters))
        self.address = self._numbers.buffer_info()[0]

    def reads(self, addresses: list[int]) -> None:
        """Take the parameters from these addresses from now on."""
        self._numbers[self._parameters] = array("q", addresses)


def prepared(cell: Cell, batch: int) -> Prepared | None:
    """Prepare a step of `batch` rows, or return None: it does not compile, or reads weights that are computed."""
    call = Call(cell, cell.weight_ih.new_zeros(batch, 1, cell.input_size))
    found = kernels_of(cell, call)
    if found is None:
        return None
    native, vectors, matrices = found
    loop, rows = native.brief, Batch.of(batch, 1, None)
    form = loop.form(rows, 1, 1)
    names = loop.kernel.slots
    slots = {name: slot for slot, name in enumerate(names)}
    numbers = form.numbers[:]
    if ("row_stride", "step", "x") in slots:
        numbers[slots["row_stride", "step", "x"]] = cell.input_size
    numbers[form.order], numbers[form.active] = rows.order.data_ptr(), rows.active.data_ptr()
    first = names[: loop.kernel.changing]
    for slot, number in form.strides:
        owner, parameter = matrices[number]
        numbers[slot] = owner[parameter].shape[1]
    read = [vectors[name[2]] for name in first if name[:2] == ("buffer", "shared")]
    multiplied = [matrices[name[1]] for name in first if name[0] == "matrix"]
    parameters = read + multiplied
    return Prepared(
        kernel=loop.entry,
        numbers=numbers,
        reads=len(first) - len(parameters),
        size=form.size,
        scratch=slots["scratch",],
        parameters=parameters,
        rows=rows,
    )
