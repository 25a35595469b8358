"""One step of a stack of cells at a time: arguments of the kernels are kept, a step fills in addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import add, getitem

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile.loop import MOST_FORMS
from tidegate.compile.prepared import Argument, Prepared, prepared

MOST_ROWS = 32
"""Up to so many rows, products read the matrices as they stand; beyond, a run of one step is the better way."""


# Looked up once, and called for whole lists: a step is so short that more would be felt.
_address, _is_dense = Tensor.data_ptr, Tensor.is_contiguous
_is_dispatched = torch._C._len_torch_dispatch_stack
_is_autocast, _functorch = torch._C._is_any_autocast_enabled, torch._C._functorch.peek_interpreter_stack
_is_compiling = torch.compiler.is_compiling


def is_watched() -> bool:
    """Whether something follows torch's operations, so that none may be done past it."""
    return _is_compiling() or _is_dispatched() > 0 or _is_autocast() or _functorch() is not None


class Stepper:
    """One step of cells that feed each other, `batch` rows, for as long as nothing of the cells is set anew.

    Every state is one tensor [layers, B, ·], dense. Parameters are read where they stand when a step is run, so it
    always runs with them as they are.
    """

    def __init__(self, cells: Iterable[Cell], layers: Sequence[Prepared], batch: int) -> None:
        self._cells = cells
        self._seen = [(cell, cell.changes, cell.training, _as_lent(cell)) for cell in cells]
        self._same_cells = list(cells)
        first = self._same_cells[0]
        self.dtype = first.weight_ih.dtype
        self._shape = torch.Size((batch, first.input_size)) if layers else None
        self._shapes = [torch.Size((len(self._seen), batch, size)) for size in first.state_sizes]
        self._begin = [torch.zeros(shape, dtype=self.dtype, device="cpu") for shape in self._shapes]
        self._out = torch.empty(batch, first.state_sizes[0], dtype=self.dtype, device="cpu")
        self._layers = layers
        self._owners = [owner for layer in layers for owner, _ in layer.parameters]
        self._names = [name for layer in layers for _, name in layer.parameters]
        self._sizes = [owner[name].shape for layer in layers for owner, name in layer.parameters]
        self._addresses: list[int] = []
        self._offsets = [batch * size * self.dtype.itemsize for size in first.state_sizes]
        self._free: list[list[Argument]] = []

    def holds(self) -> bool:
        """Whether the layer has the same cells, and nothing of them was set anew."""
        same = all(c.changes == n and c.training is t and (lent is None or lent()) for c, n, t, lent in self._seen)
        return same and list(self._cells) == self._same_cells

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

    def step(self, x: Tensor, state: Tensor | Sequence[Tensor] | None) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Step from `state`, a tensor or one for each; return the output and the new states, or None, see `advance`."""
        given = self._begin if state is None else state
        before: Sequence[Tensor] = [given] if type(given) is Tensor else given  # type: ignore[assignment]
        if not self.fits(before):
            return None
        after = list(map(torch.empty_like, self._begin))
        try:
            arguments = self._free.pop()
        except IndexError:  # all are at work, in other threads
            arguments = self.arguments()
        y = self.advance(x, arguments, list(map(_address, before)), list(map(_address, after)))
        self._free.append(arguments)
        return None if y is None else (y, after)

    def _suits(self, parameter: Tensor, shape: torch.Size) -> bool:
        """Whether a parameter that lies elsewhere than before is still what the kernels read."""
        plain = type(parameter) in (Tensor, torch.nn.Parameter) and not parameter.is_neg()
        return plain and parameter.is_cpu and parameter.dtype is self.dtype and parameter.shape == shape

    def arguments(self) -> list[Argument]:
        """Return what `advance` works with: for one thread at a time."""
        return [Argument(layer) for layer in self._layers]

    def advance(self, x: Tensor, arguments: list[Argument], begins: list[int], ends: list[int]) -> Tensor | None:
        """Step from the states at the addresses `begins` to those at `ends`; return the output [B, H].

        Return None, and touch nothing, where this cannot be done: something follows torch's operations, `x` is not a
        plain, dense tensor [B, I] of the weights' dtype, the cells are not what they were, or their parameters.
        """
        if is_watched():
            return None
        if type(x) is not Tensor or x.shape != self._shape or x.dtype is not self.dtype:
            return None
        for cell, changes, training, lent in self._seen:
            if cell.changes != changes or cell.training is not training or (lent and not lent()):
                return None
        parameters = list(map(getitem, self._owners, self._names))
        addresses = list(map(_address, parameters))
        if not all(map(_is_dense, parameters)) or list(self._cells) != self._same_cells:
            return None
        if not x.is_contiguous() or x.is_neg() or not x.is_cpu:
            return None
        if addresses != self._addresses:
            if not all(map(self._suits, parameters, self._sizes)):
                return None
            self._addresses = addresses
        y = torch.empty_like(self._out)
        source, out = x.data_ptr(), y.data_ptr()
        if len(arguments) > 1:
            self._climb(arguments, source, out, begins, ends, addresses)
        else:
            layer, argument = self._layers[0], arguments[0]
            layer.write(argument.numbers, 0, 0, 0, source, out, *begins, *ends, *addresses)
            layer.kernel(argument.address)
        return y

    def _climb(
        self, arguments: list[Argument], source: int, out: int, begins: list[int], ends: list[int], addresses: list[int]
    ) -> None:
        """Run layer after layer, each on what the one below gives out as its first state."""
        first = 0
        for layer, argument in zip(self._layers, arguments, strict=True):
            last = first + len(layer.parameters)
            layer.write(argument.numbers, 0, 0, 0, source, out, *begins, *ends, *addresses[first:last])
            layer.kernel(argument.address)
            first, source = last, ends[0]
            begins, ends = list(map(add, begins, self._offsets)), list(map(add, ends, self._offsets))


def _as_lent(cell: Cell) -> Callable[[], bool] | None:
    """Return what tells whether the layer that owns a cell's weights still has the same, by name; None without one."""
    if cell.owner is None:
        return None
    keys = cell.owner._parameters.keys()
    names = frozenset(keys)
    return lambda: names == keys


class Steppers:
    """The compiled steps of a layer, by number of rows."""

    def __init__(self) -> None:
        self._known: dict[int, Stepper] = {}
        self._last: Stepper | None = None

    def __reduce__(self) -> tuple[type[Steppers], tuple[()]]:
        return Steppers, ()

    def step(
        self, cells: Callable[[], Iterable[Cell]], x: Tensor, state: Tensor | Sequence[Tensor] | None
    ) -> tuple[Tensor, Sequence[Tensor]] | None:
        """Run one step of the cells as `Stepper.step` does."""
        done = None if self._last is None else self._last.step(x, state)
        if done is None and not is_watched() and isinstance(x, Tensor) and x.dim() == 2:
            self._last = self.of(cells(), x.shape[0])
            done = self._last.step(x, state)
        return done

    def of(self, cells: Iterable[Cell], batch: int) -> Stepper:
        """Return the steps of `batch` rows; where there are none, one that refuses to advance."""
        known = self._known.get(batch)
        if known is None or not known.holds():
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
    kind = type(cell)
    return (
        cell.state_sizes == first.state_sizes
        and not cell.inputs
        and not (cell.training and cell.noise.draws)
        and kind.readout is Cell.readout
        and kind.initial_state is Cell.initial_state
        and not cell._modules
    )
