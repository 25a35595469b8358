"""torch's own kernels (oneDNN, cuDNN, ATen), for the cells that are exactly torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import _VF, Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate.cells.base import Cell, State
from tidegate.shapes import zero_padding

KERNELS: dict[str, Callable[..., Any]] = {
    "lstm": _VF.lstm,
    "gru": _VF.gru,
    "rnn_tanh": _VF.rnn_tanh,
    "rnn_relu": _VF.rnn_relu,
}


def refuses(cell: Cell, x: Tensor, _: Tensor | None, resets: Tensor | None) -> str | None:
    """Return why torch's kernel cannot run this, or None when it can."""
    if cell.native() is None:
        return f"torch has no kernel for {type(cell).__name__}({cell.extra_repr()})"
    if resets is not None:
        return "torch's kernels cannot reset the state within a sequence"
    if x.shape[0] == 0 or x.shape[1] == 0:
        return f"torch's kernels need at least one row and one step, got shape {list(x.shape)}"
    return None


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,  # noqa: ARG001
) -> tuple[Tensor, State]:
    """Run `cell` over `x` [B, T, I] as `reference.unroll` does, in one call of torch's kernel.

    Unequal lengths go through a packed sequence, which copies them to the host. No second derivative where
    oneDNN or cuDNN computes the first; the reference has it.
    """
    if state is None:
        state = cell.initial_state(x.shape[0], device=x.device, dtype=x.dtype)
    states = tuple(s.unsqueeze(0) for s in cell.unpack(state))
    if lengths is None:
        y, states = _dense(cell, x, states)
    else:
        y, states = _padded(cell, x, states, lengths)
    y = cell.readout(y)
    if lengths is not None:
        y = zero_padding(y, lengths)
    return y, cell.pack(tuple(s.squeeze(0) for s in states))


def _dense(cell: Cell, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    y, *after = _kernel(cell)(x, _hidden(states), _weights(cell), cell.bias, 1, 0.0, cell.training, False, True)
    return y, tuple(after)


def _padded(cell: Cell, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Pack, run, pad. A packed row has at least one step: an empty row runs one on zeros, and is undone."""
    on_host = lengths.cpu()
    shortest = int(on_host.min())
    if shortest == x.shape[1]:
        return _dense(cell, x, states)
    if shortest == 0:
        x = zero_padding(x, lengths)
    packed = pack_padded_sequence(x, on_host.clamp(min=1), batch_first=True, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None
    assert back is not None
    sorted_states = tuple(s.index_select(1, order) for s in states)
    data, *after = _kernel(cell)(
        packed.data, packed.batch_sizes, _hidden(sorted_states), _weights(cell), cell.bias, 1, 0.0,
        cell.training, False,
    )  # fmt: skip
    y, _ = pad_packed_sequence(packed._replace(data=data), batch_first=True, total_length=x.shape[1])
    unsorted = tuple(s.index_select(1, back) for s in after)
    if shortest == 0:
        empty = (lengths == 0)[None, :, None]
        unsorted = tuple(torch.where(empty, old, new) for old, new in zip(states, unsorted, strict=True))
    return y, unsorted


def _kernel(cell: Cell) -> Callable[..., Any]:
    return KERNELS[cell.native() or ""]


def _hidden(states: tuple[Tensor, ...]) -> Tensor | list[Tensor]:
    return states[0] if len(states) == 1 else list(states)


def _weights(cell: Cell) -> list[Tensor]:
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh, getattr(cell, "weight_hr", None))
    return [w for w in weights if w is not None]
