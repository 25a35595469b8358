"""A stack of cells over whole batches: what a call would find out again is kept, so that short calls are short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile import compiled
from tidegate.compile.call import Call
from tidegate.compile.loop import MOST_FORMS, zeros
from tidegate.compile.native import Native
from tidegate.compile.operator import unroll_now
from tidegate.compile.select import choose
from tidegate.compile.settled import Place, Settled, are_as_traced, is_plain, places
from tidegate.compile.trace import UntraceableError


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

    def run(self, x: Tensor, given: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Run over `x` [B, T, I] from states [layers, B, H], or none; return the outputs [B, T, O] and the last states.

        Return None where it must be done the long way: `x` or a state is not a plain tensor of the weights' dtype
        that fits, the cells are not what they were, or their parameters.
        """
        settled = self.settled
        if not self._layers or x.shape[2] != self._width or not self._takes(x):
            return None
        shapes = [(len(self._layers), x.shape[0], width) for width in self._layers[0].states]
        if given and not ([s.shape for s in given] == shapes and all(map(self._takes, given))):
            return None
        parameters = settled.read()
        if parameters is None:
            return None
        first, after = 0, []
        for number, layer in enumerate(self._layers):
            split, last = first + layer.vectors, first + len(layer.parameters)
            vectors = [v if v.dim() == 1 else v.reshape(-1) for v in parameters[first:split]]
            states = [s[number].contiguous() for s in given] or [zeros(*shape[1:], settled.dtype) for shape in shapes]
            x, *ends = unroll_now(layer.native, [x], [], states, [], vectors, parameters[split:last], None, None)
            after.append(ends)
            first = last
        if len(after) == 1:
            return x, tuple([s.unsqueeze(0) for s in after[0]])
        return x, tuple([torch.stack(each) for each in zip(*after, strict=True)])

    def _takes(self, x: Tensor) -> bool:
        return type(x) is Tensor and x.dtype is self.settled.dtype and x.is_cpu and not x.is_neg()


class Runners:
    """The prepared runs of a layer, by number of steps, in training and in evaluation."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, bool], Runner] = {}

    def __reduce__(self) -> tuple[type[Runners], tuple[()]]:
        return Runners, ()

    def run(
        self, cells: Iterable[Cell], x: object, state: object, backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Run the cells as `Runner.run` does, where `backend` is "auto" or the compiler's, and nothing is watched."""
        given = [state] if type(state) is Tensor else [] if state is None else state
        if type(x) is not Tensor or x.dim() != 3 or not isinstance(given, list | tuple):
            return None
        key = (x.shape[1], next(iter(cells)).training)
        known = self._known.get(key)
        done = None if known is None else known.run(x, given)
        if done is None and (known is None or not known.settled.holds()):
            if len(self._known) >= MOST_FORMS:
                self._known.clear()
            known = self._known[key] = _runner(cells, x, backend)
            done = known.run(x, given)
        return done


def _runner(cells: Iterable[Cell], x: Tensor, backend: str) -> Runner:
    """Prepare runs over batches like `x`.

    Without layers, where a cell does not compile, is not all kernel, or has states of other sizes than the first.
    """
    layers = []
    sizes = next(iter(cells)).state_sizes
    for cell in cells:
        layer = _layer(cell, x, backend)
        if layer is None or layer.states != sizes:
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
