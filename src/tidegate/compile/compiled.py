"""The backend `llvm`: any cell's step, traced and compiled into one native loop, forward and backward."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from tidegate.cells.base import Cell
from tidegate.compile.attributes import attributes, cannot_change_unseen
from tidegate.compile.call import Call, Refusal, Run
from tidegate.compile.hoisted import Found, Hoisted, modules
from tidegate.compile.llvm.amx import EXACT, SHORT
from tidegate.compile.llvm.host import host
from tidegate.compile.loop import REALS
from tidegate.compile.memory import zeros
from tidegate.compile.native import Native
from tidegate.compile.operator import NATIVES, unroll_as_node, unroll_now
from tidegate.compile.program import fingerprint, program
from tidegate.compile.trace import Traced, UntraceableError, trace
from tidegate.errors import ShapeError
from tidegate.shapes import zero_padding

Key = tuple[object, ...]
Result = tuple[Traced, Native] | UntraceableError


@dataclass
class _Known:
    """What is known of a cell: its traces by what they depend on, and the one of the last run.

    That one holds while nothing of the cell was set, if nothing of it can change otherwise, and it reads nothing but x.
    """

    traces: dict[Key, Result] = field(default_factory=dict)
    last: tuple[int, bool, tuple[torch.dtype, tuple[str, int]], Result] | None = None


_TRACED: WeakKeyDictionary[Cell, _Known] = WeakKeyDictionary()
_WARNED: WeakSet[type[Cell]] = WeakSet()
_RECENT: OrderedDict[str, Native] = OrderedDict()
_MOST_RECENT = 64
"""So many kernels, those that were asked for last, are kept when their cells are gone: for the next copies of them."""
_MAKING = Lock()


def refuses(call: Call) -> Refusal | None:
    """Return what words the reason why this cannot be compiled, or None when it can."""
    cell, x = call.cell, call.x
    if x.device.type != "cpu" or cell.weight_ih.dtype not in REALS:
        return lambda: (
            f"kernels are compiled for float32 and float64 on the CPU, got {cell.weight_ih.dtype}, {x.device}"
        )
    if cell.kernel_sizes:
        return lambda: "convolutions join the rows of a frame, and kernels take each row by itself"
    if cell.batch_norm:
        return lambda: "batch_norm joins the rows of a batch, and kernels take each row by itself"
    if call.every_state:
        return lambda: "the states of every step are kept by the reference"
    if torch.compiler.is_compiling():
        if torch.is_autocast_enabled("cpu"):
            return lambda: "in graphs of torch's compiler, kernels do not run under autocast"
        node = _node(call)
        return (lambda: node) if isinstance(node, str) else None
    if torch.autograd.forward_ad._current_level >= 0:
        return lambda: "derivatives in forward mode need operations of torch's own"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return lambda: "torch.func's transforms need operations of torch's own"
    found = traced_of(call)
    if isinstance(found, UntraceableError):
        return lambda: f"{found}; instead: {found.hint}"
    return None


def unroll(call: Call) -> Run:
    """Run what `reference.unroll` does as one compiled loop; no second derivative.

    Under autocast to bfloat16 a matrix unit multiplies numbers rounded to it; all else is done in the weights' type.
    """
    if torch.compiler.is_compiling():
        return _unroll(call, _in_graph(call))
    found = traced_of(call)
    assert not isinstance(found, UntraceableError)
    if not torch.is_autocast_enabled("cpu"):
        return _unroll(call, _at_once(call, *found))
    with torch.autocast("cpu", enabled=False):
        return _unroll(call, _at_once(call, *found))


def _unroll(call: Call, read: Read) -> Run:
    (vectors, matrices, names, run), cell, lengths = read, call.cell, call.lengths
    dtype = cell.weight_ih.dtype
    x = call.x if lengths is None else zero_padding(call.x, lengths)
    x, batch = x.to(dtype), x.shape[0]
    needs_fresh = call.states is None or call.resets is not None
    fresh = _initial(cell, batch, dtype) if needs_fresh else ()
    states = fresh if call.states is None else tuple(s.to(dtype) for s in call.states)
    given = call.given.steps
    if lengths is not None:
        given = {name: zero_padding(each, lengths) for name, each in given.items()}
    first, *after = run(
        [x, *(given[name] for name in names if name in given)],
        [call.given.rows[name].contiguous() for name in names if name in call.given.rows],
        [s.contiguous() for s in states],
        [s.contiguous() for s in fresh] if call.resets is not None else [],
        [_flat(v.to(dtype)) for v in vectors],
        [_in_rows(m.to(dtype)) for m in matrices],
        lengths,
        call.resets,
    )
    y = cell.readout(first)
    if lengths is not None and y is not first:
        y = zero_padding(y, lengths)
    return Run(y, tuple(after))


Read = tuple[list[Tensor], list[Tensor], Sequence[str], Callable[..., Sequence[Tensor]]]
"""The vectors and matrices that a kernel reads, the names of all else it reads, and what runs it."""


def _at_once(call: Call, traced: Traced, native: Native) -> Read:
    values = traced.hoisted.values(call.cell, call.given.whole)
    vectors, matrices = ([values[number] for number in numbers] for numbers in (traced.vectors, traced.matrices))
    shapes = [v.shape for v in vectors + matrices]
    if shapes != traced.shapes or not all(v.is_cpu for v in vectors + matrices):
        raise ShapeError(
            f"running {type(call.cell).__name__}",
            expected=f"weights on the CPU of shapes {list(map(list, traced.shapes))}, as when the cell was compiled",
            got=", ".join(f"{list(v.shape)} on {v.device}" for v in vectors + matrices),
            hint="build a new cell for other sizes; layer.to('cpu')",
        )
    return vectors, matrices, list(traced.widths), partial(unroll_now, native)


def _in_graph(call: Call) -> Read:
    node = _node(call)
    assert not isinstance(node, str)
    key, names, *places = node
    owners = modules(call.cell)
    vectors, matrices = ([getattr(owners[number], name) for number, name in each] for each in places)
    return vectors, matrices, names, partial(unroll_as_node, key)


Places = tuple[tuple[int, str], ...]
Node = tuple[str, tuple[str, ...], Places, Places]
"""A kernel's key, the names of what it reads beside weights, and where in a cell its vectors and matrices are found."""

_COMPUTED = "in graphs of torch's compiler, weights that are computed from parameters take the reference's loop"
_IN_GRAPHS: dict[str, Native] = {}
"""Kernels that a compiled or exported graph may call, for as long as the process lives."""


def _node(call: Call) -> Node | str:
    """Return the kernel that a graph of torch's compiler calls for this cell, or why it has none."""
    cell, given = call.cell, call.given
    drawn = cell.masks()
    if drawn.whole:
        return _COMPUTED
    rows, steps = (tuple((name, width) for name, (width, _) in masks.items()) for masks in (drawn.rows, drawn.steps))
    rows += tuple((name, each.shape[-1]) for name, each in given.rows.items() if name not in dict(rows))
    steps = tuple((name, each.shape[-1]) for name, each in given.steps.items() if name not in dict(steps)) + steps
    return _constant_node(cell, cell.changes, rows, steps)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant_node(
    cell: Cell,
    changes: int,  # noqa: ARG001
    rows: tuple[tuple[str, int], ...],
    steps: tuple[tuple[str, int], ...],
) -> Node | str:
    """Return what `_node` does; the compiler asks again when `changes`, or a width, is another."""
    found = _traced_as(cell, dict(rows), dict(steps), {}, None)
    if isinstance(found, UntraceableError):
        return f"{found}; instead: {found.hint}"
    traced, native = found
    places, owners = [], modules(cell)
    for entry in traced.hoisted.entries:
        if not isinstance(entry, Found) or not isinstance(entry.place, tuple):
            return _COMPUTED
        if parametrize.is_parametrized(owners[entry.place[0]], entry.place[1]):
            return _COMPUTED
        places.append(entry.place)
    _IN_GRAPHS[native.key] = native
    vectors, matrices = (tuple(places[n] for n in numbers) for numbers in (traced.vectors, traced.matrices))
    return native.key, tuple(traced.widths), vectors, matrices


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


def _initial(cell: Cell, batch: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the initial states, which kernels only read: zeros, made once, where the cell has none of its own."""
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    if watched or type(cell).initial_state is not Cell.initial_state:
        return cell.unpack(cell.initial_state(batch))
    return tuple([zeros(batch, size, dtype) for size in cell.state_sizes])


def _flat(x: Tensor) -> Tensor:
    return x if x.dim() == 1 and x.is_contiguous() else x.reshape(-1).contiguous()


def _in_rows(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def traced_of(call: Call) -> Result:
    """Return the cell's trace and its kernels, or why there are none; both are remembered for as long as the cell."""
    cell, dtype = call.cell, call.cell.weight_ih.dtype
    known = _TRACED.get(cell) or _TRACED.setdefault(cell, _Known())
    now = cell.changes, cell.training, (dtype, _machine(cell))
    if known.last is not None and known.last[:3] == now and not cell._modules:
        return known.last[3]
    drawn = cell.masks()
    rows, steps = ({name: width for name, (width, _) in masks.items()} for masks in (drawn.rows, drawn.steps))
    whole = {name: shape for name, (shape, _) in drawn.whole.items()}
    steps = {name: each.shape[-1] for name, each in call.given.steps.items()} | steps
    rows = {name: each.shape[-1] for name, each in call.given.rows.items()} | rows
    found = _traced_as(cell, rows, steps, whole, call)
    if not cell.inputs and cannot_change_unseen(cell):
        known.last = (*now, found)
    return found


def _traced_as(
    cell: Cell, rows: dict[str, int], steps: dict[str, int], whole: dict[str, torch.Size], call: Call | None
) -> Result:
    """Return the cell's trace that reads `rows` and `steps` beside x, by name and width, and `whole` by shape."""
    known = _TRACED.get(cell) or _TRACED.setdefault(cell, _Known())
    read = (tuple(each.items()) for each in (rows, steps, whole))
    key = (cell.weight_ih.dtype, _machine(cell), *read, attributes(cell))
    if key not in known.traces:
        known.traces[key] = _new_trace(cell, rows, steps, whole, call)
    return known.traces[key]


def _new_trace(
    cell: Cell, rows: dict[str, int], steps: dict[str, int], whole: dict[str, torch.Size], call: Call | None
) -> Result:
    try:
        traced = trace(cell, rows, steps, whole)
    except UntraceableError as error:
        return error
    except ShapeError:
        if call is not None:
            _take_one_step(call)
        raise
    return traced, _native(traced, cell)


def _native(traced: Traced, cell: Cell) -> Native:
    """Return the kernels of a traced step, those of another cell where it does the same."""
    target, dtype, (_, parts) = host(), cell.weight_ih.dtype, _machine(cell)
    key = f"{fingerprint(traced, cell.state_sizes)}-{target.isa}-{dtype}-{parts}"
    with _MAKING:
        native = NATIVES.get(key)
        if native is None:
            # What belongs to this cell alone must not live on with the kernels.
            plan = program(replace(traced, hoisted=Hoisted()), cell.state_sizes)
            native = NATIVES[key] = Native(key, plan, target, dtype, parts)
        _RECENT[key] = native
        _RECENT.move_to_end(key)
        if len(_RECENT) > _MOST_RECENT:
            _RECENT.popitem(last=False)
    return native


def _machine(cell: Cell) -> tuple[str, int]:
    """Return which instructions kernels are made of, and in how many parts of bfloat16 a matrix unit multiplies.

    In one where autocast wants no more.
    """
    isa = host().isa
    short = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return isa, SHORT if short and isa == "amx" and cell.weight_ih.dtype is torch.float32 else EXACT


def _take_one_step(call: Call) -> None:
    """Raise what is wrong with a step in the caller's own sizes rather than the tracer's, where there is one."""
    cell, x = call.cell, call.x
    if not x.shape[1]:
        return
    states = None if call.states is None else cell.pack(call.states)
    with torch.no_grad():
        cell(x[:, 0], states, **{name: each[:, 0] for name, each in call.given.steps.items()})
