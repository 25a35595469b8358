"""One step of a stack of cells at a time: arguments of the kernels are kept, a step fills in addresses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import add

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile.loop import MOST_FORMS
from tidegate.compile.prepared import Argument, Prepared, prepared
from tidegate.compile.settled import Settled, is_plain

MOST_ROWS = 32
"""Up to so many rows, products read the matrices as they stand; beyond, a run of one step is the better way."""


# Looked up once: a step is so short that more would be felt.
_address, _like = Tensor.data_ptr, torch.empty_like


class Stepper:
    """One step of cells that feed each other, `batch` rows, for as long as nothing of the cells is set anew.

    Every state is one tensor [layers, B, ·], dense. Parameters are read where they stand when a step is run, so it
    always runs with them as they are.
    """

    def __init__(self, cells: Iterable[Cell], layers: Sequence[Prepared], batch: int) -> None:
        self.settled = Settled(cells, [place for layer in layers for place in layer.parameters])
        first = next(iter(cells))
        self._read = self.settled.read
        self.dtype = self.settled.dtype
        self._shape = torch.Size((batch, first.input_size)) if layers else None
        self._shapes = [torch.Size((len(list(cells)), batch, size)) for size in first.state_sizes]
        self._begin = [torch.zeros(shape, dtype=self.dtype, device="cpu") for shape in self._shapes]
        self._out = torch.empty(batch, first.state_sizes[0], dtype=self.dtype, device="cpu")
        self._layers = layers
        self._offsets = [batch * size * self.dtype.itemsize for size in first.state_sizes]
        self._free: list[Arguments] = []

    def fits(self, states: Sequence[Tensor]) -> bool:
        """Whether these are plain tensors [layers, B, ·], dense, one for each state."""
        shapes = self._shapes
        if len(states) != len(shapes):
            return False
        for index, state in enumerate(states):
            if type(state) is not Tensor or state.shape != shapes[index] or state.dtype is not self.dtype:
                return False
            if not (state.is_contiguous() and state.is_cpu):
                return False
        return True

    def step(
        self, cells: Iterable[Cell], x: Tensor, state: Tensor | Sequence[Tensor] | None
    ) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Step from `state`, a tensor or one for each; return the output and the new states, or None, see `advance`."""
        before: Sequence[Tensor]
        if state is None:
            before = self._begin
        elif type(state) is Tensor:
            before = [state]
        elif isinstance(state, list | tuple) and len(self._begin) > 1:
            before = state
        else:
            return None
        if not self.fits(before):
            return None
        after = list(map(_like, self._begin))
        try:
            arguments = self._free.pop()
        except IndexError:  # all are at work, in other threads
            arguments = self.arguments()
        y = self.advance(cells, x, arguments, list(map(_address, before)), list(map(_address, after)))
        self._free.append(arguments)
        return None if y is None else (y, after)

    def arguments(self) -> Arguments:
        """Return what `advance` works with: for one thread at a time."""
        return Arguments(self._layers)

    def advance(
        self, cells: Iterable[Cell], x: Tensor, arguments: Arguments, begins: list[int], ends: list[int]
    ) -> Tensor | None:
        """Step from the states at the addresses `begins` to those at `ends`; return the output [B, H].

        `cells` are the layer's as they are now.

        Return None, and touch nothing, where this cannot be done: `x` is not a plain, dense tensor [B, I] of the
        weights' dtype, the cells are not what they were, or their parameters. Nothing may follow torch's operations.
        """
        if type(x) is not Tensor or x.shape != self._shape or x.dtype is not self.dtype:
            return None
        if not x.is_contiguous() or x.is_neg() or not x.is_cpu:
            return None
        read = self._read(cells)
        if read is None:
            return None
        # The parameters are kept until the kernel is done with them.
        _, addresses = read
        if arguments.addresses is not addresses:
            arguments.reads(addresses)
        y = _like(self._out)
        source, out = x.data_ptr(), y.data_ptr()
        for layer in arguments.layers:
            layer.write(layer.numbers, 0, 0, 0, source, out, *begins, *ends)
            layer.kernel(layer.address)
            if layer is not arguments.last:  # the one above runs on what this one gives out as its first state
                source = ends[0]
                begins, ends = list(map(add, begins, self._offsets)), list(map(add, ends, self._offsets))
        return y


class Arguments:
    """What the kernels of a stack are told, layer by layer, and the addresses of parameters that it says."""

    def __init__(self, layers: Sequence[Prepared]) -> None:
        self.layers = [Argument(layer) for layer in layers]
        self.last = self.layers[-1] if layers else None
        self.addresses: list[int] = []
        self._counts = [len(layer.parameters) for layer in layers]

    def reads(self, addresses: list[int]) -> None:
        """Take the parameters from these addresses from now on."""
        first = 0
        for layer, count in zip(self.layers, self._counts, strict=True):
            layer.reads(addresses[first : first + count])
            first += count
        self.addresses = addresses


class Steppers:
    """The compiled steps of a layer, by number of rows."""

    def __init__(self) -> None:
        self._known: dict[int, Stepper] = {}
        self._last: Stepper | None = None

    def __reduce__(self) -> tuple[type[Steppers], tuple[()]]:
        return Steppers, ()

    def step(
        self, cells: Iterable[Cell], x: Tensor, state: Tensor | Sequence[Tensor] | None
    ) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Run one step of the cells as `Stepper.step` does; nothing may follow torch's operations."""
        done = None if self._last is None else self._last.step(cells, x, state)
        if done is None and isinstance(x, Tensor) and x.dim() == 2:
            self._last = self.of(cells, x.shape[0])
            done = self._last.step(cells, x, state)
        return done

    def of(self, cells: Iterable[Cell], batch: int) -> Stepper:
        """Return the steps of `batch` rows; where there are none, one that refuses to advance."""
        known = self._known.get(batch)
        if known is None or not known.settled.holds(cells):
            if len(self._known) >= MOST_FORMS:
                self._known.clear()
            known = self._known[batch] = _stepper(cells, batch)
        return known


def _stepper(cells: Iterable[Cell], batch: int) -> Stepper:
    """Prepare steps of `batch` rows; one without layers refuses everything.

    It has none where cells differ in size, do not compile, draw noise, read more than x, start from states or give
    outputs of their own making, or have weights that are computed.
    """
    first = next(iter(cells))
    simple = 0 < batch <= MOST_ROWS and all(_is_simple(cell, first) for cell in cells)
    layers = [prepared(cell, batch) for cell in cells] if simple else []
    return Stepper(cells, [] if None in layers else layers, batch)  # type: ignore[arg-type]


def _is_simple(cell: Cell, first: Cell) -> bool:
    return cell.state_sizes == first.state_sizes and is_plain(cell)
