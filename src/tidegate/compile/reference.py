"""The plain PyTorch loop: the definition of correct."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tidegate.cells.noise import Now
from tidegate.compile.call import Call, Run
from tidegate.shapes import length_mask, repeat_last_step, zero_padding

States = tuple[Tensor, ...]
Watch = Callable[[States, States], States]
"""Is told what a step read and gave, and returns what is to stand for the latter."""


def unroll(call: Call, watch: Watch | None = None) -> Run:
    """Run the cell over `x` [B, T, I]; return the outputs [B, T, O] and each row's states after its last step.

    From `lengths[b]` on, row b's states stand still and its output is exactly 0; what `x` holds there changes
    nothing. Where `resets` [B, T] is true, the states before that step are the cell's initial ones. Without
    `states` it starts there too. Differentiable, also twice, in x, the states and the weights.

    A row that has ended takes its last real step again and the result is dropped: no derivative is met there,
    finite or not, that a real step did not have. `watch` sees every step.
    """
    cell, x, lengths = call.cell, call.x, call.lengths
    batch, steps = x.shape[:2]
    dtype = cell.weight_ih.dtype
    fresh = cell.unpack(cell.initial_state(batch, device=x.device))
    states = fresh if call.states is None else tuple(s.to(dtype) for s in call.states)
    given = call.given
    real = running = None
    if lengths is not None:
        x = repeat_last_step(x, lengths)
        given = given._replace(steps={name: repeat_last_step(s, lengths) for name, s in given.steps.items()})
        running = length_mask(lengths, steps)[..., None]
        real = running.unbind(1)
    reset = None if call.resets is None else call.resets[..., None].unbind(1)
    seen: list[States] = []
    before = states
    cell.begin()
    with cell.bound({name: row[:, None] for name, row in given.rows.items()} | {"now": Now(0, running)}):
        projected = cell.project(x)
    for t, x_t in enumerate(projected.unbind(1)):
        begun = states if reset is None else _where(reset[t], fresh, states)
        before = begun if real is None else _where(real[t], begun, before)
        now = Now(t, None if real is None else real[t])
        after = cell.advance(x_t, before, given.at(t) | {"now": now})
        if watch is not None:
            after = watch(before, after)
        states = after if real is None else _where(real[t], after, states)
        seen.append(after if call.every_state else after[:1])
    cell.settle()
    stacked = _stack(seen, states, batch, lengths)
    y = cell.readout(stacked[0])
    return Run(y if lengths is None else zero_padding(y, lengths), states, stacked if call.every_state else ())


def _stack(seen: list[States], states: States, batch: int, lengths: Tensor | None) -> States:
    if not seen:
        return tuple(s.new_zeros(batch, 0, s.shape[1]) for s in states)
    stacked = tuple(torch.stack(each, 1) for each in zip(*seen, strict=True))
    return stacked if lengths is None else tuple(zero_padding(s, lengths) for s in stacked)


def _where(mask: Tensor, new: States, old: States) -> States:
    return tuple(torch.where(mask, n, o) for n, o in zip(new, old, strict=True))
