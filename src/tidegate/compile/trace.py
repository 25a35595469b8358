"""A cell's step, run once on a few rows and written down as a row graph."""

from __future__ import annotations

import linecache
import math
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from tidegate.cells.base import Cell
from tidegate.compile.graph import Factor, Graph, Node
from tidegate.compile.hoisted import Done, Found, Hoisted, Shared, is_window, modules, tensors_of, window
from tidegate.compile.operations import OPERATIONS
from tidegate.compile.rows import Matrix, Row, UnsupportedError
from tidegate.errors import ConfigError

ROWS = 5
_VALUE_READERS = ("_local_scalar_dense", "is_nonzero", "item", "equal", "nonzero")
_INSTEAD = "write it from elementwise functions, reductions over the last axis and products with weights"


class UntraceableError(Exception):
    """Why a step cannot be compiled: the reason, the line it stands in, what to write instead."""

    def __init__(self, reason: str, where: str, hint: str) -> None:
        super().__init__(f"{reason}; {where}" if where else reason)
        self.hint = hint


@dataclass(frozen=True)
class Traced:
    """One step: the new states as rows, and which hoisted values its `shared` leaves and factors name.

    `widths` are those of x and of all else the step is given, by name: first what changes with the steps. `shapes` are
    those of the values named, vectors first.
    """

    graph: Graph
    states: tuple[tuple[Node, ...], ...]
    hoisted: Hoisted
    vectors: tuple[int, ...]
    matrices: tuple[int, ...]
    widths: dict[str, int]
    shapes: list[torch.Size]


def trace(cell: Cell, rows: Mapping[str, int], steps: Mapping[str, int], whole: Mapping[str, torch.Size]) -> Traced:
    """Run one step of `cell` on a few rows, projection included, and write down what it does.

    `rows` and `steps` are names and widths of what it reads beside x, for a whole sequence and at every step; `whole`,
    names and shapes of what is one for all of them.

    Raises `UntraceableError` where something in the step cannot be compiled.
    """
    like = cell.weight_ih
    with (
        _disable_current_modes(),
        torch._C.DisableTorchFunction(),
        torch.inference_mode(False),
        torch.enable_grad(),
        _nothing_kept(),
        parametrize.cached(),
        torch.autocast(like.device.type, enabled=False),
    ):
        extra = {name: like.new_ones(ROWS, width) for name, width in {**steps, **rows}.items()}
        drawn = {name: like.new_ones(shape) for name, shape in whole.items()}
        x = like.new_ones(ROWS, cell.input_size)
        states = tuple(like.new_full((ROWS, size), 0.5) for size in cell.state_sizes)
        recorder = Recorder(cell)
        recorder.reads("step", "x", x)
        for name, value in extra.items():
            recorder.reads("row" if name in rows else "step", name, value)
        for index, state in enumerate(states):
            recorder.reads("state", index, state)
        for name, value in drawn.items():
            recorder.shares(name, value)
        with recorder:
            with cell.bound(extra):
                projected = cell.project(x)
            try:
                after = cell.advance(projected, states, extra | drawn)
            except RuntimeError as error:
                recorder.refuse_writing(error)
                raise
        recorder.check_hooks()
        with torch.no_grad():
            values = recorder.hoisted.values(cell, drawn)
    named = (*recorder.vectors, *recorder.matrices)
    pieces = tuple(recorder.state(a) for a in after)
    widths = {"x": x.shape[1], **{name: value.shape[1] for name, value in extra.items()}}
    return Traced(
        recorder.graph,
        pieces,
        recorder.hoisted,
        tuple(recorder.vectors),
        tuple(recorder.matrices),
        widths,
        [values[number].shape for number in named],
    )


def _nothing_kept() -> AbstractContextManager[object]:
    """Keep nothing for gradients, and spare whoever follows what is kept for them."""
    if not torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
        return nullcontext()
    return saved_tensors_hooks(lambda _: None, lambda nothing: nothing)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation of a step: on rows, it becomes nodes; on parameters alone, it is kept to be done once."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cell = cell
        self.graph = Graph()
        self.hoisted = Hoisted()
        self.vectors: list[int] = []
        self.matrices: list[int] = []
        self._known: dict[int, Row | Shared | UntraceableError] = {}
        self._alive: list[Tensor] = []
        self._given: dict[int, str] = {}
        self._owned = {
            id(tensor): (number, name)
            for number, module in enumerate(modules(cell))
            for name, tensor in tensors_of(module)
        }

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that torch's compiler, two seconds to import, need not be told to keep out."""
        return False

    def reads(self, kind: str, name: str | int, value: Tensor) -> None:
        """Let `value` [ROWS, w] stand for what the step is given."""
        self._know(value, Row((self.graph.node(kind, value.shape[1], (), (name, 0)),)))
        self._given[value.untyped_storage()._cdata] = self.cell.states[name] if isinstance(name, int) else name

    def shares(self, name: str, value: Tensor) -> None:
        """Let `value` stand for what is drawn for the whole run by that name."""
        self._know(value, Shared(self.hoisted.append(Found(name), 1)))

    def state(self, value: Tensor) -> tuple[Node, ...]:
        """Return the pieces of a new state."""
        known = self._known.get(id(value))
        if isinstance(known, UntraceableError):
            raise known
        if not isinstance(known, Row):
            hint = "let every state follow from the input or the states"
            raise UntraceableError("step gives a state that follows from no input and no state", self._where(), hint)
        return known.pieces

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in _VALUE_READERS:
            hint = "torch.where(condition, a, b), which takes both and chooses"
            raise UntraceableError("step asks for the value of a tensor, as `if` does", self._where(), hint)
        if torch.Tag.nondeterministic_seeded in function.tags:
            hint = "name what is drawn in `inputs` and give it to the layer, or use the cell's own noise options"
            raise UntraceableError(f"step draws random numbers ({name})", self._where(), hint)
        if not torch.is_grad_enabled():
            hint = "x.detach() for what has no gradient, soft + (hard - soft).detach() for the gradient of another"
            raise UntraceableError("step computes under no_grad, or in an autograd.Function", self._where(), hint)
        values = tree_map(lambda a: self._value(a) if isinstance(a, Tensor) else a, (args, kwargs or {}))
        result = function(*args, **(kwargs or {}))
        if not isinstance(result, Tensor | tuple | list):  # a device, a size: nothing that is computed
            return result
        if any(isinstance(v, Row | UntraceableError) for v in _leaves(values)):
            self._record(name, function, values, result)
        else:
            self._hoist(name, function, args, values, result)
        return result

    def check_hooks(self) -> None:
        """Raise where a gradient on its way would be looked at or changed."""
        owned = {id(tensor) for module in modules(self.cell) for _, tensor in tensors_of(module)}
        if any(tensor._backward_hooks for tensor in self._alive if id(tensor) not in owned):
            raise UntraceableError("step puts a hook on a tensor", "", "a hook on the layer's input or its parameters")

    def _record(self, name: str, function: Any, values: Any, result: Any) -> None:
        if function._schema.is_mutable and name != "detach_":
            self._check_not_given(name, result)
            raise _writes(name.rstrip("_"), self._where())
        outputs = result if isinstance(result, tuple | list) else [result]
        try:
            rows = self._rows(name, values)
        except UntraceableError as error:
            # What nobody reads does no harm; what `if` reads is told so.
            for tensor in outputs:
                self._know(tensor, error)
            return
        for tensor, row in zip(outputs, rows, strict=False):
            if row is not None:
                self._check_shape(name, tensor, row)
                self._know(tensor, row)

    def _check_not_given(self, name: str, changed: Any) -> None:
        """Raise `ConfigError` where a step changes what it is given: the loop, too, would go wrong."""
        given = self._given.get(changed.untyped_storage()._cdata) if isinstance(changed, Tensor) else None
        if given is not None:
            plain = name.rstrip("_")
            raise ConfigError(
                f"taking a step of {type(self.cell).__name__}",
                expected="one that leaves what it is given as it is: its states are those that a run gives out",
                got=f"{plain}_ changes {given} in place, {self._where()}",
                hint=f"torch.{plain}(…), or an operator, which makes a new tensor",
            )

    def _rows(self, name: str, values: Any) -> list[Row | None]:
        """Return what an operation makes of rows."""
        for value in _leaves(values):
            if isinstance(value, UntraceableError):
                raise value
        if name not in OPERATIONS:
            raise UntraceableError(f"{name} is not among the operations that compile", self._where(), _INSTEAD)
        try:
            args, kwargs = tree_map(self._operand, values, is_leaf=_is_value)
            rows = OPERATIONS[name](self.graph, *args, **kwargs)
        except UnsupportedError as error:
            raise UntraceableError(f"{name} does not compile: {error}", self._where(), _INSTEAD) from error
        return rows if isinstance(rows, list) else [rows]

    def _check_shape(self, name: str, tensor: Tensor, row: Row) -> None:
        if tuple(tensor.shape) != ((ROWS,) if row.flat else (ROWS, row.width)):
            shape = ["B", *tensor.shape[1:]] if tensor.shape[:1] == (ROWS,) else list(tensor.shape)
            raise UntraceableError(f"{name} gives {shape}", self._where(), "tensors [B, width] throughout the step")

    def _hoist(self, name: str, function: Any, args: Any, values: Any, result: Any) -> None:
        """Keep what depends on parameters alone: as a window where it is one, else as an operation."""
        first = values[0][0] if values[0] else None
        if isinstance(first, Shared) and isinstance(result, Tensor) and is_window(name, args):
            self._know(result, window(first, name, args))
            return
        tensors = list(result) if isinstance(result, tuple | list) else [result]
        first_number = self.hoisted.append(Done(function, *values), len(tensors))
        for number, tensor in enumerate(tensors, first_number):
            self._know(tensor, Shared(number))

    def _value(self, tensor: Tensor) -> Row | Shared | UntraceableError:
        """Return what a tensor stands for; one not seen before is a parameter, or a constant of the step's own."""
        if id(tensor) not in self._known:
            found = Found(self._owned.get(id(tensor), tensor))
            self._know(tensor, Shared(self.hoisted.append(found, 1), shape=tuple(tensor.shape)))
        return self._known[id(tensor)]

    def _operand(self, value: Any) -> Any:
        """Return a shared value as an operation takes it: a matrix, or a vector that every row reads."""
        if not isinstance(value, Shared):
            return value
        whole = (value.row, value.column, value.turned) == (0, 0, False)
        vector = None
        if len(value.shape) < 2 or (len(value.shape) == 2 and value.shape[0] == 1 and whole):
            width = math.prod(value.shape)
            vector = Row((self.graph.node("shared", width, (), (_index(self.vectors, value.base), value.row)),))
        if len(value.shape) != 2:
            return vector if len(value.shape) < 2 else value
        factor = Factor(_index(self.matrices, value.base), value.row, value.column, value.turned)
        return Matrix(factor, (value.shape[0], value.shape[1]), vector)

    def _know(self, tensor: Tensor, value: Row | Shared | UntraceableError) -> None:
        if isinstance(value, Shared):
            value = replace(value, shape=tuple(tensor.shape))
        self._known[id(tensor)] = value
        self._alive.append(tensor)

    def refuse_writing(self, error: RuntimeError) -> None:
        """Raise in place of an error by which torch refuses to write to one of several views, as gates are."""
        if "inplace" not in str(error):
            return
        where = self._line(traceback.walk_tb(error.__traceback__))
        method = re.search(r"\.(\w+)_\(", where)
        raise _writes(method[1] if method else None, where) from error

    def _where(self) -> str:
        """Return the line of the cell's own code that is being run, as text."""
        return self._line(traceback.walk_stack(sys._getframe()))

    def _line(self, frames: Iterable[tuple[FrameType, int]]) -> str:
        codes = {f.__code__ for c in type(self.cell).__mro__ if (f := vars(c).get("step")) and hasattr(f, "__code__")}
        for frame, number in frames:
            if frame.f_code in codes:
                file = frame.f_code.co_filename
                return f"{Path(file).name}, line {number}: {linecache.getline(file, number).strip()}"
        return ""


def _writes(name: str | None, where: str) -> UntraceableError:
    plain = f"torch.{name}(…) or an operator" if name else "an operator"
    told = f"{name}_ changes" if name else "step changes"
    return UntraceableError(f"{told} a tensor in place", where, f"{plain} that makes a new tensor")


def _index(numbers: list[int], number: int) -> int:
    if number not in numbers:
        numbers.append(number)
    return numbers.index(number)


def _is_value(value: object) -> bool:
    return isinstance(value, Row | Shared | UntraceableError)


def _leaves(values: Any) -> list[Any]:
    return tree_leaves(values, is_leaf=_is_value)
