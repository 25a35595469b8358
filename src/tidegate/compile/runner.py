"""A stack of cells over whole batches: what a call would find out again is kept, so that short calls are short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile import compiled
from tidegate.compile.call import Call
from tidegate.compile.loop import MOST_FORMS, zeros
from tidegate.compile.native import Native
from tidegate.compile.operator import unroll_now
from tidegate.compile.select import choose
from tidegate.compile.settled import Place, Settled, are_as_traced, is_plain, is_watched, places
from tidegate.compile.trace import UntraceableError

States = tuple[Tensor, ...]


@dataclass(frozen=True)
class Layer:
    """A cell's kernel, how many vectors and matrices it reads, and the widths of its states."""

    native: Native
    parameters: list[Place]
    vectors: int
    states: tuple[int, ...]


class Runner:
    """Cells that feed each other, over full batches, for as long as nothing of them is set anew."""

    def __init__(self, cells: Iterable[Cell], layers: Sequence[Layer]) -> None:
        self.settled = Settled(cells, [place for layer in layers for place in layer.parameters])
        self._layers = layers
        self._width = self.settled.cells[0].input_size

    def run(self, x: Tensor, before: Sequence[States | None]) -> tuple[Tensor, list[States]] | None:
        """Run over `x` [B, T, I]; return the outputs [B, T, O] and the last states of each cell, [B, ·].

        Return None where it must be done the long way: something follows torch's operations, `x` or a state is not a
        plain tensor of the weights' dtype, the cells are not what they were, or their parameters.
        """
        settled = self.settled
        if not self._layers or is_watched() or not self._takes(x):
            return None
        if not all(s is None or all(map(self._takes, s)) for s in before):
            return None
        parameters = settled.read()
        if parameters is None:
            return None
        first, after = 0, []
        for layer, given in zip(self._layers, before, strict=True):
            split, last = first + layer.vectors, first + len(layer.parameters)
            vectors, matrices = parameters[first:split], parameters[split:last]
            vectors = [v if v.dim() == 1 else v.reshape(-1) for v in vectors]
            states = given or [zeros(x.shape[0], width, settled.dtype) for width in layer.states]
            states = [s.contiguous() for s in states]
            x, *ends = unroll_now(layer.native, [x], [], states, [], vectors, matrices, None, None)
            after.append(tuple(ends))
            first = last
        return x, after

    def _takes(self, x: Tensor) -> bool:
        return type(x) is Tensor and x.dtype is self.settled.dtype and x.is_cpu and not x.is_neg()


class Runners:
    """The prepared runs of a layer, by number of steps, in training and in evaluation."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], Runner] = {}

    def __reduce__(self) -> tuple[type[Runners], tuple[()]]:
        return Runners, ()

    def of(self, cells: Iterable[Cell], x: Tensor, backend: str) -> Runner:
        """Return what runs the cells over batches like `x` [B, T, I], where `backend` is "auto" or the compiler's."""
        key = (x.shape[1], next(iter(cells)).training)
        known = self._known.get(key)
        if known is None or not known.settled.holds():
            if len(self._known) >= MOST_FORMS:
                self._known.clear()
            known = self._known[key] = _runner(cells, x, backend)
        return known


def _runner(cells: Iterable[Cell], x: Tensor, backend: str) -> Runner:
    """Prepare runs over batches like `x`; without layers where a cell does not compile, or is not all kernel."""
    layers = []
    for cell in cells:
        layer = _layer(cell, x, backend)
        if layer is None:
            return Runner(cells, [])
        layers.append(layer)
    return Runner(cells, layers)


def _layer(cell: Cell, x: Tensor, backend: str) -> Layer | None:
    call = Call(cell, x.detach()[..., :1].expand(-1, -1, cell.input_size))
    if not is_plain(cell) or (choose(call) if backend == "auto" else backend) != "llvm" or compiled.refuses(call):
        return None
    found = compiled.traced_of(call)
    assert not isinstance(found, UntraceableError)
    traced, native = found
    vectors, matrices = places(cell, traced, traced.vectors), places(cell, traced, traced.matrices)
    if vectors is None or matrices is None or not are_as_traced(vectors + matrices, traced):
        return None
    return Layer(native, vectors + matrices, len(vectors), cell.state_sizes)
