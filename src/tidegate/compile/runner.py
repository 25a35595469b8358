"""A stack of cells over whole batches: what a call would find out again is kept, so that short calls are short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile.call import Call
from tidegate.compile.loop import MOST_FORMS
from tidegate.compile.memory import zeros
from tidegate.compile.native import Native
from tidegate.compile.operator import unroll_plain
from tidegate.compile.select import choose
from tidegate.compile.settled import Place, Settled, is_plain, kernels_of


@dataclass(frozen=True)
class Layer:
    """A cell's kernel, how many vectors and matrices it reads, and the widths of its states."""

    native: Native
    parameters: list[Place]
    vectors: int
    states: tuple[int, ...]


class Runner:
    """Cells that feed each other, over full batches, for as long as nothing of them is set anew."""

    def __init__(self, cells: Iterable[Cell], layers: Sequence[Layer], batch: int) -> None:
        self.settled = Settled(cells, [place for layer in layers for place in layer.parameters])
        self._layers = layers
        widths = layers[0].states if layers else ()
        self._shapes = [torch.Size((len(layers), batch, width)) for width in widths]
        self._begin = [zeros(batch, width, self.settled.dtype) for width in widths]

    def run(
        self, cells: Iterable[Cell], x: Tensor, given: Sequence[Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Run over `x` [B, T, I] from states [layers, B, H], or none; return the outputs [B, T, O] and the last states.

        Return None where it must be done the long way: `x` or a state is not a plain tensor of the weights' dtype
        that fits, the cells are not what they were, or their parameters.
        """
        if not self._layers or x.is_neg():
            return None
        if given is not None and not (all(map(self._takes, given)) and [s.shape for s in given] == self._shapes):
            return None
        read = self.settled.read(cells)
        if read is None:
            return None
        parameters, _ = read
        first, after = 0, []
        for number, layer in enumerate(self._layers):
            split, last = first + layer.vectors, first + len(layer.parameters)
            vectors = [v if v.dim() == 1 else v.reshape(-1) for v in parameters[first:split]]
            states = self._begin if given is None else [s[number].contiguous() for s in given]
            x, *ends = unroll_plain(layer.native, [x], [], states, [], vectors, parameters[split:last], None, None)
            after.append(ends)
            first = last
        if len(after) == 1:
            return x, tuple([s.unsqueeze(0) for s in after[0]])
        return x, tuple([torch.stack(each) for each in zip(*after, strict=True)])

    def _takes(self, x: Tensor) -> bool:
        return type(x) is Tensor and x.dtype is self.settled.dtype and x.is_cpu and not x.is_neg()


class Runners:
    """The prepared runs of a layer, by what the choice of a backend depends on: sizes and the backend named."""

    def __init__(self) -> None:
        self._known: dict[tuple[torch.Size, str], Runner] = {}

    def __reduce__(self) -> tuple[type[Runners], tuple[()]]:
        return Runners, ()

    def run(
        self, cells: Iterable[Cell], x: object, state: object, backend: str
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """Run the cells as `Runner.run` does, prepared now where they are not.

        `backend` is "auto" or the compiler's, and nothing is watched.
        """
        first = next(iter(cells))
        given = [state] if state is not None and len(first.states) == 1 else state
        if not (given is None or isinstance(given, list | tuple)):
            return None
        if type(x) is not Tensor or x.layout is not torch.strided or x.is_nested:
            return None
        if x.dim() != 3 or x.shape[2] != first.input_size or not x.is_cpu:
            return None
        if x.dtype is not first.weight_ih.dtype:
            return None
        key = (x.shape, backend)
        known = self._known.get(key)
        done = None if known is None else known.run(cells, x, given)
        if done is None and (known is None or not known.settled.holds(cells)):
            if len(self._known) >= MOST_FORMS:
                self._known.clear()
            known = self._known[key] = _runner(cells, x, backend)
            done = known.run(cells, x, given)
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
            return Runner(cells, [], x.shape[0])
        layers.append(layer)
    return Runner(cells, layers, x.shape[0])


def _layer(cell: Cell, x: Tensor, backend: str) -> Layer | None:
    call = Call(cell, x.detach()[..., :1].expand(-1, -1, cell.input_size))
    if not is_plain(cell) or (choose(call) if backend == "auto" else backend) != "llvm":
        return None
    found = kernels_of(cell, call)
    if found is None:
        return None
    native, vectors, matrices = found
    return Layer(native, vectors + matrices, len(vectors), cell.state_sizes)
