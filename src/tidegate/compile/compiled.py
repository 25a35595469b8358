"""The backend `llvm`: any cell's step, traced and compiled into one native loop, forward and backward."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor

from tidegate.cells.base import Cell
from tidegate.compile import operator
from tidegate.compile.call import Call, Refusal, Run
from tidegate.compile.llvm.host import host
from tidegate.compile.loop import REALS
from tidegate.compile.native import Native
from tidegate.compile.program import program
from tidegate.compile.trace import Traced, UntraceableError, trace
from tidegate.errors import ShapeError
from tidegate.shapes import zero_padding

Key = tuple[object, ...]
Result = tuple[Traced, Native] | UntraceableError


@dataclass
class _Known:
    """What is known of a cell: its traces by what they depend on, and the one of the last run in evaluation.

    That one holds while nothing of the cell was set, if it has no modules within that could change unseen.
    """

    traces: dict[Key, Result] = field(default_factory=dict)
    last: tuple[int, torch.dtype, Result] | None = None


_TRACED: WeakKeyDictionary[Cell, _Known] = WeakKeyDictionary()
_WARNED: WeakSet[type[Cell]] = WeakSet()
_PLAIN = frozenset({int, float, bool, str, type(None)})


def refuses(call: Call) -> Refusal | None:
    """Return what words the reason why this cannot be compiled, or None when it can."""
    cell, x = call.cell, call.x
    if x.device.type != "cpu" or cell.weight_ih.dtype not in REALS:
        return lambda: (
            f"kernels are compiled for float32 and float64 on the CPU, got {cell.weight_ih.dtype}, {x.device}"
        )
    if torch.compiler.is_compiling():
        return lambda: "torch.compile and torch.export follow the reference's loop"
    if torch.is_autocast_enabled("cpu"):
        return lambda: "compiled kernels do not run under autocast"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return lambda: "torch.func's transforms need operations of torch's own"
    if call.every_state:
        return lambda: "the states of every step are kept by the reference"
    found = traced_of(call)
    if isinstance(found, UntraceableError):
        return lambda: f"{found}; instead: {found.hint}"
    return None


def unroll(call: Call) -> Run:
    """Run what `reference.unroll` does as one compiled loop; no second derivative."""
    found = traced_of(call)
    assert not isinstance(found, UntraceableError)
    traced, kernels = found
    cell, lengths = call.cell, call.lengths
    dtype = cell.weight_ih.dtype
    x = call.x if lengths is None else zero_padding(call.x, lengths)
    x, batch = x.to(dtype), x.shape[0]
    needs_fresh = call.states is None or call.resets is not None
    fresh = cell.unpack(cell.initial_state(batch, device=x.device)) if needs_fresh else ()
    states = fresh if call.states is None else tuple(s.to(dtype) for s in call.states)
    given = call.given.steps
    if lengths is not None:
        given = {name: zero_padding(each, lengths) for name, each in given.items()}
    values = traced.hoisted.values(cell)
    first, *after = operator.unroll(
        kernels,
        [x, *(given[name] for name in traced.widths if name in given)],
        [call.given.rows[name] for name in traced.widths if name in call.given.rows],
        [_in_rows(s) for s in states],
        [_in_rows(s) for s in fresh] if call.resets is not None else [],
        [_flat(values[v]) for v in traced.vectors],
        [_in_rows(values[m]) for m in traced.matrices],
        lengths,
        call.resets,
    )
    y = cell.readout(first)
    if lengths is not None and y is not first:
        y = zero_padding(y, lengths)
    return Run(y, tuple(after))


def warn_of_the_loop(call: Call) -> None:
    """Say, once for each class of cell, that a step which does not compile runs step by step, and why."""
    known = _TRACED.get(call.cell) or _Known()
    reasons = [each for each in known.traces.values() if isinstance(each, UntraceableError)]
    kind = type(call.cell)
    if reasons and kind not in _WARNED:
        _WARNED.add(kind)
        warnings.warn(
            f"{kind.__name__} runs step by step in Python, which is slow: {reasons[0]}; instead: {reasons[0].hint}",
            stacklevel=2,
        )


def _flat(x: Tensor) -> Tensor:
    return x if x.dim() == 1 and x.is_contiguous() else x.reshape(-1).contiguous()


def _in_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def traced_of(call: Call) -> Result:
    """Return the cell's trace and its kernels, or why there are none; both are remembered for as long as the cell."""
    cell, dtype = call.cell, call.cell.weight_ih.dtype
    known = _TRACED.get(cell) or _TRACED.setdefault(cell, _Known())
    plain = not (cell._modules or cell.inputs or (cell.training and cell.noise.draws))
    if plain and known.last is not None and known.last[:2] == (cell.changes, dtype):
        return known.last[2]
    rows, steps = ({name: width for name, (width, _) in masks.items()} for masks in cell.masks())
    steps = {name: each.shape[-1] for name, each in call.given.steps.items()} | steps
    rows = {name: each.shape[-1] for name, each in call.given.rows.items()} | rows
    key = (dtype, tuple(rows.items()), tuple(steps.items()), _plain(cell))
    if key not in known.traces:
        known.traces[key] = _new_trace(call, rows, steps)
    if plain:
        known.last = (cell.changes, dtype, known.traces[key])
    return known.traces[key]


def _new_trace(call: Call, rows: dict[str, int], steps: dict[str, int]) -> Result:
    cell = call.cell
    try:
        traced = trace(cell, rows, steps)
    except UntraceableError as error:
        return error
    except ShapeError:
        _take_one_step(call)
        raise
    native = Native(program(traced, cell.state_sizes), host(), cell.weight_ih.dtype)
    operator.NATIVES[native.key] = native
    return traced, native


def _take_one_step(call: Call) -> None:
    """Raise what is wrong with a step in the caller's own sizes rather than the tracer's, where there is one."""
    cell, x = call.cell, call.x
    if not x.shape[1]:
        return
    states = None if call.states is None else cell.pack(call.states)
    with torch.no_grad():
        cell(x[:, 0], states, **{name: each[:, 0] for name, each in call.given.steps.items()})


def _plain(cell: Cell) -> Key:
    """Return the plain attributes of the cell and what is in it, which its step may have read while it was traced."""
    return tuple([v for module in cell.modules() for v in vars(module).values() if type(v) in _PLAIN])
