"""Long sequences a segment at a time, so that what lies between x and the outputs stays in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tidegate.compile import pages
from tidegate.compile.call import Call, Run
from tidegate.compile.once import without_derivative

SEGMENT_BYTES = 8 << 20
"""The projected inputs of a segment, as measured: larger ones leave the cache, smaller ones are mostly calls."""

WORTHWHILE_BYTES = 4 * SEGMENT_BYTES


def segment_steps(call: Call) -> int | None:
    """Return how many steps make a segment of this call, or None where it runs better, or only, as a whole.

    A segment is computed a second time for its derivative. So what it reads must be what it read the first time:
    plain parameters, no noise drawn for each step, no autocast.
    """
    cell, x = call.cell, call.x
    row = x.shape[0] * cell.weight_ih.shape[0] * cell.weight_ih.element_size()
    if row * x.shape[1] < WORTHWHILE_BYTES or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if call.every_state or call.given.steps or any(cell.noise.zoneout):
        return None
    modules = cell if cell.owner is None else cell.owner
    if not all(type(p) is nn.Parameter for p in modules.parameters()) or hasattr(cell, "parametrizations"):
        return None
    return max(1, SEGMENT_BYTES // row)


def unroll(call: Call, whole: Callable[[Call], Run], states: tuple[Tensor, ...], steps: int) -> Run:
    """Return what `whole(call)` does from `states`, computed `steps` steps at a time. Differentiable once."""
    owner = call.cell if call.cell.owner is None else call.cell.owner
    parameters = [p for p in owner.parameters() if p.requires_grad]
    y, *after = _Segments.apply(call, whole, steps, len(states), call.x, *states, *parameters)  # type: ignore[no-untyped-call]
    return Run(y, tuple(after))


def _parts(call: Call, steps: int) -> Iterator[tuple[slice, Call]]:
    """Each segment: where it lies, and the call that it is but for x and its states."""
    for start in range(0, call.x.shape[1], steps):
        here = slice(start, start + steps)
        size = min(steps, call.x.shape[1] - start)
        lengths = None if call.lengths is None else (call.lengths - start).clamp(0, size)
        yield here, replace(call, lengths=lengths, resets=None if call.resets is None else call.resets[:, here])


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: Call, whole: Callable[[Call], Run], steps: int, count: int, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        states = tensors[:count]
        starts: list[Tensor] = []
        y = x.new_empty(0)
        for here, part in _parts(call, steps):
            starts.extend(states)
            run = whole(replace(part, x=x[:, here], states=states))
            if not here.start:
                y = pages.empty((*x.shape[:2], run.outputs.shape[2]), run.outputs)
            y[:, here] = run.outputs
            states = run.states
        ctx.call, ctx.whole, ctx.steps, ctx.count = call, whole, steps, count
        ctx.save_for_backward(x, *tensors[count:], *starts)
        return (y, *states)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dstates: Tensor) -> Any:
        x, *saved = ctx.saved_tensors
        parts = list(_parts(ctx.call, ctx.steps))
        kept = len(saved) - len(parts) * ctx.count
        parameters, starts = saved[:kept], saved[kept:]
        dx = pages.empty(x.shape, x) if x.requires_grad else None
        sums, behind = [torch.zeros_like(p) for p in parameters], list(dstates)
        for place, (here, part) in reversed(list(enumerate(parts))):
            with torch.enable_grad():
                x_here = x[:, here].detach().requires_grad_(x.requires_grad)
                before = [s.detach().requires_grad_() for s in starts[place * ctx.count : (place + 1) * ctx.count]]
                run = ctx.whole(replace(part, x=x_here, states=tuple(before)))
            outputs = [run.outputs, *run.states]
            found = list(
                torch.autograd.grad(
                    [each for each in outputs if each.requires_grad],
                    [*before, *parameters, *([] if dx is None else [x_here])],
                    [d for each, d in zip(outputs, [dy[:, here], *behind], strict=True) if each.requires_grad],
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
            if dx is not None:
                dx[:, here] = found.pop()
            behind = found[: ctx.count]
            for total, each in zip(sums, found[ctx.count :], strict=True):
                total += each
        gradients = without_derivative("a linear recurrence", lambda: (dx, *behind, *sums), [x, *parameters])
        return (None, None, None, None, *gradients)
