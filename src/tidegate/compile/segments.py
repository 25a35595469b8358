"""Long sequences a segment at a time: what lies between x and the outputs is kept for one segment only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from tidegate.cells.base import Cell
from tidegate.compile import pages
from tidegate.compile.call import Call, Run
from tidegate.compile.once import without_derivative
from tidegate.errors import BackendError, ConfigError
from tidegate.modes import modes_kept, modes_of, set_modes

SEGMENT_BYTES = 8 << 20
"""The projected inputs of a segment, as measured: larger ones leave the cache, smaller ones are mostly calls."""

WORTHWHILE_BYTES = 4 * SEGMENT_BYTES


def segment_steps(call: Call) -> int | None:
    """Return how many steps make a segment of this call, or None where it runs better, or only, as a whole.

    A segment pays where what lies between x and the outputs stays in the cache.
    """
    cell, x = call.cell, call.x
    row = x.shape[0] * cell.weight_ih.shape[0] * cell.weight_ih.element_size()
    if row * x.shape[1] < WORTHWHILE_BYTES or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if call.every_state or call.given.steps or any(cell.noise.zoneout) or cell.batch_norm:
        return None
    if not _reads_parameters(cell) or hasattr(cell, "parametrizations"):
        return None
    return max(1, SEGMENT_BYTES // row)


def _reads_parameters(cell: Cell) -> bool:
    """Whether weights are parameters, or computed from them whenever they are read, so that they are the same later."""
    owner = cell if cell.owner is None else cell.owner
    plain = all(type(p) is nn.Parameter for p in owner.parameters())
    return plain and not any(
        isinstance(v, Tensor) and v.requires_grad for m in owner.modules() for v in vars(m).values()
    )


def recompute(call: Call, whole: Callable[[Call], Run]) -> Run:
    """Return what `whole(call)` does, and keep √T states instead of what every step leaves for its derivative.

    Between two of them, the steps are run a second time when gradients are asked for, in training or not as the first
    time and with the same random numbers; nothing else of the cell may have changed (Chen et al. 2016, 1604.06174,
    section 4.1). Differentiable once. Raises `ConfigError` where weights may not be the same the second time.
    """
    cell, x = call.cell, call.x
    if cell.batch_norm:
        raise ConfigError(
            f"running {type(cell).__name__} with recompute=True",
            expected="steps that may be run a second time, a segment at a time",
            got=f"batch_norm={cell.batch_norm}, whose statistics belong to whole runs, seen once",
            hint="layer_norm=True, or recompute=False",
        )
    if not _reads_parameters(cell):
        raise ConfigError(
            f"running {type(cell).__name__} with recompute=True",
            expected="weights that are parameters, or parametrized",
            got="weights computed once, before the run",
            hint="torch.nn.utils.parametrizations, which compute them when they are read; or recompute=False",
        )
    states = call.states or cell.unpack(cell.initial_state(x.shape[0], device=x.device))
    # Shorter segments would need less memory, and pack the weights more often.
    return unroll(call, whole, states, max(1, math.isqrt(x.shape[1])))


def unroll(call: Call, whole: Callable[[Call], Run], states: tuple[Tensor, ...], steps: int) -> Run:
    """Return what `whole(call)` does from `states`, computed `steps` steps at a time. Differentiable once."""
    parameters = [p for p in _parameters(call.cell) if p.requires_grad]
    given = list(call.given.steps.values())
    counts = (1 + len(given), len(states), len(parameters))
    y, *after = _Segments.apply(call, whole, steps, counts, call.x, *given, *states, *parameters)  # type: ignore[no-untyped-call]
    return Run(y, tuple(after))


def _parameters(cell: Cell) -> list[Tensor]:
    owner = cell if cell.owner is None else cell.owner
    return list(owner.parameters())


@contextmanager
def _again(ctx: Any, place: int) -> Iterator[None]:
    """Let a segment be run as it was the first time: in training or not, and with the same random numbers."""
    devices, more = ctx.devices[place]
    with torch.random.fork_rng(devices), modes_kept(ctx.call.cell):
        torch.set_rng_state(ctx.random[place].clone())  # a view it would read from its storage's beginning
        set_device_states(devices, more)
        set_modes(ctx.modes)
        yield


def _sum(total: Tensor | None, each: Tensor | None) -> Tensor | None:
    if total is None or each is None:
        return total if each is None else each.clone()
    return total.add_(each)


def _parts(call: Call, steps: int) -> Iterator[tuple[slice, Call]]:
    """Each segment: where it lies, and the call that it is but for its states and what it reads at every step."""
    length = call.x.shape[1]
    for start in range(0, length, steps) if length else [0]:
        here = slice(start, start + steps)
        size = min(steps, length - start)
        lengths = None if call.lengths is None else (call.lengths - start).clamp(0, size)
        yield here, call._replace(lengths=lengths, resets=None if call.resets is None else call.resets[:, here])


def _reading(call: Call, along: Sequence[Tensor], states: Sequence[Tensor]) -> Call:
    """Return a segment's call, reading x and all else that changes with the steps from `along`."""
    x, *given = along
    steps = dict(zip(call.given.steps, given, strict=True))
    return call._replace(x=x, states=tuple(states), given=call.given._replace(steps=steps))


class _Segments(torch.autograd.Function):
    """Tensors come flat: what changes with the steps, x first; states; parameters. `counts` says how many of each."""

    @staticmethod
    def forward(
        ctx: Any, call: Call, whole: Callable[[Call], Run], steps: int, counts: tuple[int, int, int], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        along, states = tensors[: counts[0]], tensors[counts[0] : counts[0] + counts[1]]
        x, parts = along[0], list(_parts(call, steps))
        # In one piece: kept one by one, they would lie between what is freed, and hold the memory of every segment.
        starts = [s.new_empty(len(parts), *s.shape) for s in states]
        first = states
        ctx.random, ctx.devices, ctx.modes = torch.get_rng_state().repeat(len(parts), 1), [], modes_of(call.cell)
        y = x.new_empty(0)
        for place, (here, part) in enumerate(parts):
            for kept, state in zip(starts, states, strict=True):
                kept[place] = state
            ctx.random[place] = torch.get_rng_state()
            ctx.devices.append(get_device_states(x))
            run = whole(_reading(part, [each[:, here] for each in along], states))
            if not here.start:
                y = pages.empty((*x.shape[:2], run.outputs.shape[2]), run.outputs)
            y[:, here] = run.outputs
            states = run.states
        ctx.call, ctx.whole, ctx.steps, ctx.counts = call, whole, steps, counts
        ctx.places = [p.data_ptr() for p in _parameters(call.cell)]
        kind = x.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(*along, *tensors[len(tensors) - counts[2] :], *first, *starts)
        return (y, *states)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *dstates: Tensor) -> Any:
        (reads, count, weights), saved = ctx.counts, ctx.saved_tensors
        along, parameters = saved[:reads], saved[reads : reads + weights]
        first, starts = saved[reads + weights : -count], saved[-count:]
        if [p.data_ptr() for p in _parameters(ctx.call.cell)] != ctx.places:
            raise BackendError(
                "taking the gradient of a run with recompute=True",
                expected="the cell with the weights that it was run with",
                got="others",
                hint="take the gradient inside functional_call, or recompute=False",
            )
        # A gradient that is wanted for every step is written where its segment lies.
        to_along = [pages.empty(each.shape, each) if each.requires_grad else None for each in along]
        sums: list[Tensor | None] = [None] * weights
        behind = list(dstates)
        for place, (here, part) in reversed(list(enumerate(_parts(ctx.call, ctx.steps)))):
            with torch.enable_grad(), torch.autocast(ctx.autocast[0], *ctx.autocast[1:]), _again(ctx, place):
                read = [each[:, here].detach().requires_grad_(each.requires_grad) for each in along]
                before = [kept[place].detach().requires_grad_() for kept in starts]
                run = ctx.whole(_reading(part, read, before))
            outputs, wanted = [run.outputs, *run.states], [each for each in read if each.requires_grad]
            found = torch.autograd.grad(
                [each for each in outputs if each.requires_grad],
                [*before, *parameters, *wanted],
                [d for each, d in zip(outputs, [dy[:, here], *behind], strict=True) if each.requires_grad],
                allow_unused=True,
            )
            behind = [torch.zeros_like(b) if g is None else g for b, g in zip(before, found, strict=False)]
            sums = [_sum(total, each) for total, each in zip(sums, found[count : count + weights], strict=True)]
            kept = [gradient for gradient in to_along if gradient is not None]
            for gradient, each in zip(kept, found[count + weights :], strict=True):
                gradient[:, here] = 0 if each is None else each
        asked = [*along, *parameters, *first, dy, *dstates]
        gradients = without_derivative("a run in segments", lambda: (*to_along, *behind, *sums), asked)
        return (None, None, None, None, *gradients)
