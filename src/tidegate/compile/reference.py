"""The plain PyTorch loop: the definition of correct."""

from __future__ import annotations

import torch
from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.shapes import length_mask, repeat_last_step, zero_padding

States = tuple[Tensor, ...]


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Run `cell` over `x` [B, T, I]; return the outputs [B, T, O] and each row's state after its last step.

    From `lengths[b]` on, row b's state stands still and its output is exactly 0; what `x` holds there changes
    nothing. Where `resets` [B, T] is true, the state before that step is the cell's initial state. Without
    `state` it starts there too. Differentiable, also twice, in x, the state and the weights.

    A row that has ended takes its last real step again and the result is dropped: no derivative is met there,
    finite or not, that a real step did not have.
    """
    batch, steps = x.shape[:2]
    dtype = cell.weight_hh.dtype
    fresh = cell.unpack(cell.initial_state(batch, device=x.device))
    states = fresh if state is None else tuple(s.to(dtype) for s in cell.unpack(state))
    real = None
    if lengths is not None:
        x = repeat_last_step(x, lengths)
        real = length_mask(lengths, steps)[..., None].unbind(1)
    reset = None if resets is None else resets[..., None].unbind(1)
    outputs = []
    before = states
    for t, x_t in enumerate(cell.project(x).unbind(1)):
        begun = states if reset is None else _where(reset[t], fresh, states)
        before = begun if real is None else _where(real[t], begun, before)
        after = cell.advance(x_t, before)
        states = after if real is None else _where(real[t], after, states)
        outputs.append(after[0])
    stacked = torch.stack(outputs, 1) if outputs else x.new_zeros(batch, 0, cell.recurrent_size, dtype=dtype)
    y = cell.readout(stacked)
    return (y if lengths is None else zero_padding(y, lengths)), cell.pack(states)


def _where(mask: Tensor, new: States, old: States) -> States:
    return tuple(torch.where(mask, n, o) for n, o in zip(new, old, strict=True))
