"""The plain PyTorch loop: the definition of correct."""

from __future__ import annotations

import torch
from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.shapes import length_mask, zero_padding


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
    """
    batch, steps = x.shape[:2]
    fresh = cell.unpack(cell.initial_state(batch, device=x.device, dtype=x.dtype))
    states = fresh if state is None else cell.unpack(state)
    real = None
    if lengths is not None:
        x = zero_padding(x, lengths)
        real = length_mask(lengths, steps)[..., None].unbind(1)
    reset = None if resets is None else resets[..., None].unbind(1)
    outputs = []
    for t, x_t in enumerate(cell.project(x).unbind(1)):
        if reset is not None:
            before = tuple(torch.where(reset[t], new, old) for new, old in zip(fresh, states, strict=True))
        else:
            before = states
        after = cell.advance(x_t, before)
        if real is None:
            states = after
        else:
            states = tuple(torch.where(real[t], new, old) for new, old in zip(after, states, strict=True))
        outputs.append(after[0])
    stacked = torch.stack(outputs, 1) if outputs else x.new_zeros(batch, 0, cell.recurrent_size)
    y = cell.readout(stacked)
    return (y if lengths is None else zero_padding(y, lengths)), cell.pack(states)
