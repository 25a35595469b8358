"""torch's own kernels (oneDNN, cuDNN, ATen), for the cells that are exactly torch's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import _VF, Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate.cells.base import Cell, State
from tidegate.compile.call import Call, Refusal, Run
from tidegate.shapes import zero_padding

KERNELS: dict[str, Callable[..., Any]] = {
    "lstm": _VF.lstm,
    "gru": _VF.gru,
    "rnn_tanh": _VF.rnn_tanh,
    "rnn_relu": _VF.rnn_relu,
}


class Shape(NamedTuple):
    """How cells make up a stack, in the order of the kernels' arguments."""

    layers: int
    dropout: float
    training: bool
    bidirectional: bool


def refuses(call: Call) -> Refusal | None:
    """Return what words the reason why torch's kernel cannot run this, or None when it can."""
    cell, x = call.cell, call.x
    if cell.native() is None:
        return lambda: f"torch has no kernel for {type(cell).__name__}({cell.extra_repr()})"
    if call.resets is not None:
        return lambda: "torch's kernels cannot reset the state within a sequence"
    if call.every_state and len(cell.states) > 1:
        return lambda: "torch's kernels give out the first state only"
    if x.shape[0] == 0 or x.shape[1] == 0:
        return lambda: f"torch's kernels need at least one row and one step, got shape {list(x.shape)}"
    if torch.compiler.is_compiling():
        return lambda: "torch's kernels are not traced by torch.compile and torch.export"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return lambda: "torch's kernels have no rule for torch.func's transforms"
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return lambda: "torch's kernels on the CPU do not run under autocast"
    return None


def unroll(call: Call) -> Run:
    """Run what `reference.unroll` does, in one call of torch's kernel.

    Unequal lengths go through a packed sequence, which copies them to the host. No second derivative where
    oneDNN or cuDNN computes the first; the reference has it.
    """
    cell, lengths = call.cell, call.lengths
    outputs, after = _run([cell], Shape(1, 0.0, cell.training, False), call.x, [call.states], lengths)
    if lengths is not None:
        outputs = zero_padding(outputs, lengths)
    y = cell.readout(outputs)
    if lengths is not None and y is not outputs:
        y = zero_padding(y, lengths)
    return Run(y, tuple(s.squeeze(0) for s in after), (outputs,) if call.every_state else ())


def unroll_stack(
    cells: Sequence[Cell], shape: Shape, x: Tensor, states: Sequence[tuple[Tensor, ...] | None], lengths: Tensor | None
) -> tuple[Tensor, State] | None:
    """Run a whole stack in one call of torch's kernel, or return None where the cells are not one torch layer.

    Every state of the answer is [layers·directions, B, H]. Dropout masks are `torch.nn`'s.
    """
    first = cells[0]
    for cell in cells:
        alike = cell.native() == first.native() and cell.state_sizes == first.state_sizes and cell.bias == first.bias
        if not alike or cell.output_size != cell.recurrent_size:
            return None
    y, after = _run(cells, shape, x, states, lengths)
    return y, first.pack(after)


def _run(
    cells: Sequence[Cell], shape: Shape, x: Tensor, states: Sequence[tuple[Tensor, ...] | None], lengths: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    dtype = cells[0].weight_hh.dtype
    given = [
        cell.unpack(cell.initial_state(x.shape[0], device=x.device)) if state is None else state
        for cell, state in zip(cells, states, strict=True)
    ]
    before = tuple(torch.stack(each).to(dtype) for each in zip(*given, strict=True))
    run = _dense if lengths is None else partial(_padded, lengths=lengths)
    y, after = run(cells, shape, x.to(dtype), before)
    return y.to(dtype), tuple(s.to(dtype) for s in after)


def _dense(
    cells: Sequence[Cell], shape: Shape, x: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    y, *after = _kernel(cells[0])(x, _hidden(states), _weights(cells), cells[0].bias, *shape, True)
    return y, tuple(after)


def _padded(
    cells: Sequence[Cell], shape: Shape, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Pack, run, pad. A packed row has at least one step: an empty row runs one on zeros, and is undone."""
    on_host = lengths.cpu()
    shortest = int(on_host.min())
    if shortest == x.shape[1]:
        return _dense(cells, shape, x, states)
    if shortest == 0:
        x = zero_padding(x, lengths)
    packed = pack_padded_sequence(x, on_host.clamp(min=1), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None
    assert back is not None
    sorted_states = tuple(s.index_select(1, order) for s in states)
    data, *after = _kernel(cells[0])(
        packed.data, packed.batch_sizes, _hidden(sorted_states), _weights(cells), cells[0].bias, *shape
    )
    y, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
    unsorted = tuple(s.index_select(1, back) for s in after)
    if shortest == 0:
        y = zero_padding(y, lengths)
        empty = (lengths == 0)[None, :, None]
        unsorted = tuple(torch.where(empty, old, new) for old, new in zip(states, unsorted, strict=True))
    return y, unsorted


def _kernel(cell: Cell) -> Callable[..., Any]:
    return KERNELS[cell.native() or ""]


def _hidden(states: tuple[Tensor, ...]) -> Tensor | list[Tensor]:
    return states[0] if len(states) == 1 else list(states)


def _weights(cells: Sequence[Cell]) -> list[Tensor]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    weights = (getattr(cell, name, None) for cell in cells for name in names)
    return [w for w in weights if w is not None]
