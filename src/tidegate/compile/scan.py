"""Cells whose state is linear in itself, all steps at once: coefficients, one pass over time, outputs."""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.cells.noise import Now
from tidegate.compile import segments
from tidegate.compile.call import Call, Refusal, Run
from tidegate.compile.linear import linear_recurrence
from tidegate.shapes import last_real_step, length_mask, repeat_last_step, zero_padding


class LinearCell(Protocol):
    """What a cell promises here: its step is `c' = a⊙c + b`, its output `emit` of c' where it has two states."""

    is_complex: bool

    def affine(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def emit(self, x: Tensor, c: Tensor) -> Tensor: ...

    def scaled(self, a: Tensor, c: Tensor) -> Tensor: ...


def refuses(call: Call) -> Refusal | None:
    """Return what words the reason why this cell or call is no scan, or None when it is one."""
    cell, x = call.cell, call.x
    kind = type(cell).__name__
    if not hasattr(type(cell), "coefficients"):
        return lambda: f"{kind} gives no coefficients: its state is not linear in itself"
    if not _steps_by_coefficients(type(cell)):
        return lambda: f"{kind} has a step of its own beside its coefficients"
    if cell.inputs:
        return lambda: f"{kind} reads {', '.join(cell.inputs)} beside x, which coefficients do not"
    if x.device.type != "cpu":
        return lambda: f"the scan runs on the CPU, and x is on {x.device}"
    if cell.weight_ih.dtype not in (torch.float32, torch.float64):
        return lambda: f"the scan runs in float32 and float64, and the weights are {cell.weight_ih.dtype}"
    if cell.training and cell.noise.zoneout[-1] and cast(LinearCell, cell).is_complex:
        return lambda: "zoneout keeps real and imaginary parts one by one, which no complex factor does"
    return None


def _steps_by_coefficients(kind: type[Cell]) -> bool:
    """Whether the class that writes `step` is the one that gives it its coefficients, or a base of it that does."""
    writer = next(base for base in kind.__mro__ if "step" in vars(base))
    return "coefficients" in vars(writer)


def unroll(call: Call) -> Run:
    """Run what `reference.unroll` does, without a loop over steps in Python. Differentiable once."""
    steps = segments.segment_steps(call)
    if steps is None:
        return _whole(call)
    return segments.unroll(call, _whole, _states(call)[0], steps)


def _states(call: Call) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the states before the first step, and those that a reset brings."""
    cell, x = call.cell, call.x
    fresh = cell.unpack(cell.initial_state(x.shape[0], device=x.device))
    dtype = cell.weight_ih.dtype
    return fresh if call.states is None else tuple(s.to(dtype) for s in call.states), fresh


def _whole(call: Call) -> Run:
    """All steps at once."""
    cell, x, lengths, given = call.cell, call.x, call.lengths, call.given
    linear = cast(LinearCell, cell)
    dtype = cell.weight_ih.dtype
    states, fresh = _states(call)
    noise = given.steps
    if lengths is not None:
        x = repeat_last_step(x, lengths)
        noise = {name: repeat_last_step(each, lengths) for name, each in noise.items()}
    running = None if lengths is None else length_mask(lengths, x.shape[1])[..., None]
    now = Now(0, running)
    cell.begin()
    with cell.bound({name: row[:, None] for name, row in given.rows.items()} | {"now": now}):
        projected = cell.project(x)
    with cell.bound(noise | {"now": now}):
        a, b = (each.to(dtype) for each in linear.affine(projected))
    a = a.reshape((1,) * (3 - a.dim()) + a.shape)
    kept_a, kept_b = _zoned_out(cell, len(states) - 1, a, b, noise)
    c, last = linear_recurrence(
        kept_a, kept_b, states[-1], lengths, call.resets, fresh[-1], is_complex=linear.is_complex
    )
    every: tuple[Tensor, ...] = (c,)
    after: tuple[Tensor, ...] = (last,)
    if len(states) > 1:
        reached = c if kept_a is a else linear.scaled(a, _before(call, c, states[-1], fresh[-1])) + b
        with cell.bound(noise | {"now": now}):
            h = linear.emit(projected, reached if lengths is None else repeat_last_step(reached, lengths)).to(dtype)
        h, last_h = _outputs(call, h, states[0], fresh[0], noise)
        every, after = (h, c), (last_h, last)
    cell.settle()
    y = cell.readout(every[0])
    return Run(y if lengths is None else zero_padding(y, lengths), after, every if call.every_state else ())


def _before(call: Call, c: Tensor, start: Tensor, fresh: Tensor) -> Tensor:
    """Return the state before each step [B, T, C]; zoneout comes after the output, which must not see it."""
    before = torch.cat([start[:, None], c], 1)[:, :-1]
    return before if call.resets is None else torch.where(call.resets[..., None], fresh[:, None], before)


def _outputs(call: Call, h: Tensor, before: Tensor, fresh: Tensor, noise: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return all outputs [B, T, R], zero in the padding, and each row's last one. Zoneout makes them a scan, too."""
    cell, lengths = call.cell, call.lengths
    if cell.noise.zoneout[0]:
        a, h = _zoned_out(cell, 0, h.new_zeros(1, 1, h.shape[2]), h, noise)
        return linear_recurrence(a, h, before, lengths, call.resets, fresh)
    if not h.shape[1]:
        return h, before
    last = last_real_step(h, lengths)
    if lengths is None:
        return h, last
    return zero_padding(h, lengths), torch.where((lengths == 0)[:, None], before, last)


def _zoned_out(cell: Cell, which: int, a: Tensor, b: Tensor, noise: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Keep units of the state before each step where drawn; in evaluation, their expectation."""
    rate = cell.noise.zoneout[which]
    if not rate:
        return a, b
    if cell.training:
        kept = noise[f"kept_{cell.states[which]}"] != 0
        return torch.where(kept, 1, a), b.masked_fill(kept, 0)
    one = torch.ones_like(a)
    if cast(LinearCell, cell).is_complex and which == len(cell.states) - 1:
        one[..., a.shape[-1] // 2 :] = 0
    return torch.lerp(a, one, rate), b * (1 - rate)
