"""The state of a stack: as `torch.nn` keeps it where sizes agree, an entry for each cell where they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.errors import ShapeError
from tidegate.shapes import frames_to_rows, rows_to_frames

StackState: TypeAlias = Tensor | tuple[Tensor, ...] | tuple[State, ...]
"""[layers·directions, B, H], or a tuple of them where the cell has several states; where the layers' sizes
differ, a tuple with each cell's own state, layer by layer, forward before backward. Of frames, [B, H] is
[B, H, *space]."""


def join(cells: Sequence[Cell], states: Sequence[State]) -> StackState:
    """Return the cells' states as one."""
    states = [cast(State, each_tensor(lambda s: rows_to_frames(s, cells[0].space_sizes), state)) for state in states]
    if not _alike(cells):
        return tuple(states)
    if len(cells) == 1:
        return cells[0].pack(tuple(s.unsqueeze(0) for s in cells[0].unpack(states[0])))
    each = zip(*(cell.unpack(state) for cell, state in zip(cells, states, strict=True)), strict=True)
    return cells[0].pack(tuple(torch.stack(tensors) for tensors in each))


def part(cells: Sequence[Cell], state: StackState | None, x: Tensor) -> list[State | None]:
    """Return each cell's state [B, H], places of frames as rows, or raise `ShapeError` when `state` does not fit."""
    if state is None:
        return [None] * len(cells)
    if not _alike(cells):
        return _part_each(cells, state, x)
    names, sizes = cells[0].states, cells[0].state_sizes
    tensors = (state,) if isinstance(state, Tensor) else tuple(state) if isinstance(state, tuple | list) else ()
    if (len(names) == 1) is not isinstance(state, Tensor) or len(tensors) != len(names):
        raise ShapeError(
            "reading the state",
            expected=_expected(names),
            got=_seen(state),
            hint="pass the state as a layer returned it, or None",
        )
    for name, size, tensor in zip(names, sizes, tensors, strict=True):
        _check(name, tensor, (len(cells), x.shape[0], size, *cells[0].space_sizes), x)
    apart = zip(*(t.unbind(0) for t in tensors if isinstance(t, Tensor)), strict=True)
    return [_rows(cells[0], cells[0].pack(each)) for each in apart]


def batch_of_one(cells: Sequence[Cell], state: StackState) -> StackState:
    """Return the state of one sequence with a batch axis of one, or raise `ShapeError` in the user's own shapes."""
    tensors = (state,) if isinstance(state, Tensor) else state
    if _alike(cells) and len(tensors) == len(cells[0].states):
        for name, size, tensor in zip(cells[0].states, cells[0].state_sizes, tensors, strict=True):
            shape = (len(cells), size)
            if not isinstance(tensor, Tensor) or tensor.shape != shape:
                raise ShapeError(
                    f"reading the state {name} of one sequence",
                    expected=f"shape {list(shape)}",
                    got=_seen(tensor),
                    hint="[layers·directions, H], as the layer returns it for an input without a batch axis",
                )
    return each_tensor(lambda s: s.unsqueeze(-2), state)


def each_tensor(change: Callable[[Tensor], Tensor], state: StackState) -> StackState:
    """Return `state` with `change` applied to every tensor in it."""
    if isinstance(state, Tensor):
        return change(state)
    return cast(StackState, tuple(each_tensor(change, part) for part in state))


def tensors_of(state: StackState) -> list[Tensor]:
    """Return every tensor of a state, in order."""
    return [state] if isinstance(state, Tensor) else [t for each in state for t in tensors_of(each)]


def refilled(state: StackState, tensors: Iterable[Tensor]) -> StackState:
    """Return a state of the form of `state` that holds `tensors`, as `tensors_of` gives them."""
    each = iter(tensors)
    return each_tensor(lambda _: next(each), state)


def _part_each(cells: Sequence[Cell], state: StackState, x: Tensor) -> list[State | None]:
    if isinstance(state, Tensor) or len(state) != len(cells):
        raise ShapeError(
            "reading the state",
            expected=f"a tuple of {len(cells)} states, one for each cell",
            got=_seen(state),
            hint="layers of unequal sizes keep their states apart",
        )
    for number, (cell, each) in enumerate(zip(cells, state, strict=True)):
        tensors = cell.unpack(each)
        if len(tensors) != len(cell.states):
            raise ShapeError(
                f"reading the state of cell {number}",
                expected=_expected(cell.states),
                got=_seen(each),
                hint="pass the state as a layer returned it, or None",
            )
        for name, size, tensor in zip(cell.states, cell.state_sizes, tensors, strict=True):
            _check(f"{name} of cell {number}", tensor, (x.shape[0], size, *cell.space_sizes), x)
    return [_rows(cell, each) for cell, each in zip(cells, state, strict=True)]


def _rows(cell: Cell, state: State) -> State:
    return cast(State, each_tensor(lambda s: frames_to_rows(s, len(cell.space_sizes)), state))


def _alike(cells: Sequence[Cell]) -> bool:
    return all(cell.state_sizes == cells[0].state_sizes for cell in cells)


def _check(name: str, tensor: object, shape: tuple[int, ...], x: Tensor) -> None:
    if not isinstance(tensor, Tensor) or tensor.shape != shape:
        raise ShapeError(
            f"reading the state {name}",
            expected=f"shape {list(shape)}",
            got=_seen(tensor),
            hint="pass the state as the layer returned it, or None",
        )
    if tensor.device != x.device:
        raise ShapeError(
            f"reading the state {name}",
            expected=f"a tensor on {x.device}, where the input is",
            got=f"one on {tensor.device}",
            hint=f"state.to({str(x.device)!r})",
        )
    if tensor.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
        raise ShapeError(
            f"reading the state {name}",
            expected=f"dtype {x.dtype}, the input's",
            got=str(tensor.dtype),
            hint=f"state.to({x.dtype})",
        )


def _expected(names: tuple[str, ...]) -> str:
    return "a tensor" if len(names) == 1 else f"a tuple ({', '.join(names)})"


def _seen(state: object) -> str:
    if isinstance(state, Tensor):
        return f"a tensor of shape {list(state.shape)}"
    if isinstance(state, tuple | list):
        return f"a {type(state).__name__} of {len(state)}"
    return f"{state!r}"
