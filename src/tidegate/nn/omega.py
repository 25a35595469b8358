"""Gradients that keep their norm from step to step: how far they do not, as a term to minimise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile import reference
from tidegate.compile.call import Call, Run
from tidegate.errors import ConfigError
from tidegate.shapes import length_mask, repeat_last_step

States = tuple[Tensor, ...]


class Recorded(NamedTuple):
    """A run as it was: the call with its noise, and at each step the states read and those given, [B, ·] each."""

    call: Call
    before: list[States]
    after: list[States]


@dataclass
class Recorder:
    """Runs calls by the reference's loop, as a layer that is watched by it does, and keeps every step's states."""

    runs: list[Recorded] = field(default_factory=list)

    def __call__(self, call: Call) -> Run:
        """Run `call` with noise drawn now; batch norm and frames, which join rows, are a `ConfigError`."""
        refused = {
            f"batch_norm={call.cell.batch_norm}": call.cell.batch_norm,
            "a cell of frames": call.cell.space_sizes,
        }
        for got in (got for got, given in refused.items() if given):
            raise ConfigError(
                f"running {type(call.cell).__name__} with omega",
                expected="steps that are the same whatever other rows and steps there are",
                got=got,
                hint="layer_norm=True, or omega=0",
            )
        recorded = Recorded(call._replace(given=call.given.also(call.cell.draw(call.x))), [], [])
        self.runs.append(recorded)

        def watch(before: States, after: States) -> States:
            # Copies in the graph: the derivative to one state must not hold what reaches it by way of another.
            after = tuple(each.view_as(each) for each in after)
            recorded.before.append(before)
            recorded.after.append(after)
            return after

        return reference.unroll(recorded.call, watch)


def omega(runs: Sequence[Recorded], loss: Tensor) -> Tensor:
    """Return Ω of the runs that `loss` was computed from, the sum over their real steps, the mean over their rows.

        Ω = Σ_t (‖δ_{t+1} ∂x_{t+1}/∂x_t‖ / ‖δ_{t+1}‖ − 1)²        δ_{t+1} = ∂loss/∂x_{t+1}

    x is the whole state of a cell, all its states joined, before step t+1 and after it, x_0 being the initial one. Its
    gradient takes x, δ and what the step reads as constants: it reaches a cell's weights by the step's own Jacobian
    alone. Noise is the run's. Steps that the loss does not depend on (δ = 0) count as nothing. Costs the reference's
    loop, its backward pass a second time, and one step over all steps of all rows at once.

    Source: Pascanu, Mikolov & Bengio 2013 (1211.5063), equations 9 and 10. Deviations: the Jacobian is that of any
    cell, and the weights change it in every way, by what activations are fed too (the paper's recurrence, W σ(x), has
    them depend on x alone); several rows.
    """
    runs = [run for run in runs if run.before]
    nodes = [state for run in runs for states in run.after for state in states if state.requires_grad]
    if not nodes:
        return loss.new_zeros(())
    found = torch.autograd.grad(loss, nodes, retain_graph=True, allow_unused=True, materialize_grads=True)
    known = dict(zip(map(id, nodes), found, strict=True))
    zero = loss.new_zeros(())

    def of(states: States) -> States:
        return tuple(known.get(id(each), zero).expand_as(each) for each in states)

    deltas = [[of(states) for states in run.after] for run in runs]
    return torch.stack([_omega(run, delta) for run, delta in zip(runs, deltas, strict=True)]).sum()


def _omega(run: Recorded, deltas: list[States]) -> Tensor:
    call, cell = run.call, run.call.cell
    batch, steps = call.x.shape[:2]
    before = tuple(each.requires_grad_() for each in _flat(run.before))
    delta = _sized(_flat(deltas))
    after = _steps(cell, call, before)
    depend = [(a, d) for a, d in zip(after, delta, strict=True) if a.requires_grad]
    carried = torch.autograd.grad(
        [a for a, _ in depend], before, [d for _, d in depend],
        create_graph=True, allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    there = _square(delta)
    # A root's derivative at 0 is infinite; a clamp's below its bound is 0.
    here = _square(carried).clamp(min=torch.finfo(there.dtype).tiny)
    apart = (here.sqrt() / there.clamp(min=1).sqrt() - 1).square()
    counts = there > 0
    if call.lengths is not None:
        counts = counts & length_mask(call.lengths, steps).flatten()
    return torch.where(counts, apart, 0.0).sum() / max(batch, 1)


def _steps(cell: Cell, call: Call, before: States) -> States:
    """Take every step of a run at once, from `before` [B·T, ·]."""
    steps = call.x.shape[1]
    along = {"x": call.x, **call.given.steps}
    if call.lengths is not None:
        along = {name: repeat_last_step(each, call.lengths) for name, each in along.items()}
    each_step = {name: value.detach().flatten(0, 1) for name, value in along.items()}
    x = each_step.pop("x")
    rows = {name: value.repeat_interleave(steps, 0) for name, value in call.given.rows.items()}
    given = {**call.given.whole, **rows, **each_step}
    with cell.bound(given):
        projected = cell.project(x)
    return cell.advance(projected, before, given)


def _flat(states: list[States]) -> States:
    """Return each state of all steps, [B·T, ·], as numbers."""
    return tuple(torch.stack(each, 1).detach().flatten(0, 1) for each in zip(*states, strict=True))


def _sized(delta: States) -> States:
    """Return gradients with 1 as the largest number of each row: squares of small ones would be 0."""
    size = torch.cat(delta, -1).abs().amax(-1, keepdim=True)
    return tuple(torch.where(size > 0, each / size, 0.0) for each in delta)


def _square(states: States) -> Tensor:
    return torch.stack([each.square().sum(-1) for each in states]).sum(0)
