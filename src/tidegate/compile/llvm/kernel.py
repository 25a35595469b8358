"""A plan over a whole sequence as IR: threads take blocks of rows, and run each from its first step to its last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from tidegate.compile.graph import Node
from tidegate.compile.llvm import amx
from tidegate.compile.llvm.direct import define_direct
from tidegate.compile.llvm.frame import Frame, Name, Size, taking
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.moment import Moment
from tidegate.compile.llvm.own_lines import OwnLines
from tidegate.compile.llvm.panels import declare_pack, declare_product
from tidegate.compile.llvm.passes import Passes, Products
from tidegate.compile.llvm.subnormal import Flushed
from tidegate.compile.llvm.tile import after, steps, strided
from tidegate.compile.stages import Plan

ENTRY = "run"
PREPARE = "prepare"


@dataclass(frozen=True)
class Kernel:
    """The IR of a plan, and what must stand in the one argument of its functions, slot by slot.

    `prepare(argument)`, for every thread to call, packs the weights, if there is anything to pack; then every thread
    calls `run(argument)`.
    `scratch` names the buffers of one thread: for each row of its block as many numbers as the name's last entry says.
    With `tiles`, products are of the matrix unit, in so many parts: rows are padded to whole tiles, panels are `amx`'s.
    The slots `threads` and `taken` are counters, which begin at 0. `changing`: in a direct kernel, how many slots
    there are in front that change from step to step of a stream.
    """

    text: str
    slots: tuple[Name, ...]
    prepare_slots: tuple[Name, ...]
    scratch: tuple[Name, ...]
    changing: int = 0
    tiles: int = 0


def emit(
    plan: Plan,
    states: Sequence[int],
    target: Target,
    real: str,
    *,
    outputs: Mapping[int, tuple[str, int]],
    partial: frozenset[tuple[str, int | str]] = frozenset(),
    saved: Mapping[Node, int] | None = None,
    backward: bool = False,
    direct: bool = False,
    tiles: int = 0,
    own: bool = False,
) -> Kernel:
    """Write a plan over states of the given widths for `target`, in numbers of type `real`.

    Where it is `direct`, products take matrices as they stand, and nothing is packed: best for few rows and steps.
    With `tiles` they are those of the matrix unit, which `target` has, in so many parts: best for many rows.
    Backward, threads then may add up matrices' gradients from lines of their `own`, see `OwnLines`.
    """
    module = ir.Module("recurrence")
    module.triple = target.triple
    lanes = target.lanes(real)
    if direct:
        turned = {f.turned for node in plan.products for f in node.attributes}
        products = Products(standing={each: define_direct(module, real, lanes, each) for each in sorted(turned)})
        prepare_slots: tuple[Name, ...] = ()
        first = _changing(plan, states)
    else:
        pack = amx.declare_tile_pack(module, tiles) if tiles else declare_pack(module, real, target)
        prepare_slots = _define_prepare(module, plan, pack)
        if tiles:
            products = Products(amx.declare_tile_product(module, tiles), amx.declare_split(module, tiles))
        else:
            products = Products(declare_product(module, real, target))
        first = []
    writer = _Writer(
        module, plan, states, real, lanes, products, outputs, partial, saved or {}, first,
        (target, tiles) if own else None,
    )  # fmt: skip
    (writer.backward if backward else writer.forward)()
    return Kernel(str(module), tuple(writer.frame.names), prepare_slots, tuple(writer.places), len(first), tiles)


def _changing(plan: Plan, states: Sequence[int]) -> list[Name]:
    """Return what changes from step to step, or may: counters, input and output, states, parameters."""
    factors = [f for node in plan.products for f in node.attributes]
    read = [i for stage in plan.stages for node in stage.nodes for i in node.inputs]
    names: list[Name] = [("threads",), ("taken",), ("buffer", "step", "x"), ("buffer", "out", 0)]
    names += [("buffer", kind, index) for kind in ("initial", "final") for index, _ in enumerate(states)]
    names += [("buffer", "shared", node.attributes[0]) for node in read if node.op == "shared"]
    names += [("matrix", f.matrix) for f in factors]
    return list(dict.fromkeys(names))


def _define_prepare(module: ir.Module, plan: Plan, pack: ir.Function) -> tuple[Name, ...]:
    """Define the packing of what products multiply by, a term at a time for whichever thread takes it next."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), PREPARE)
    frame = Frame(function)
    terms = [
        (number, term, node, v, factor)
        for number, node in enumerate(plan.products)
        for term, (v, factor) in enumerate(zip(node.inputs, node.attributes, strict=True))
    ]
    builder = ir.IRBuilder(function.append_basic_block("take"))
    end = function.append_basic_block("done")
    item = builder.atomic_rmw("add", frame.slot("taken"), INDEX(1), "monotonic")
    choice = builder.switch(item, end)
    for place, (number, term, node, v, factor) in enumerate(terms):
        block = function.append_basic_block("term")
        choice.add_case(INDEX(place), block)
        here = ir.IRBuilder(block)
        across, down = frame.index("row_stride", "matrix", factor.matrix), INDEX(1)
        by_k, by_n = (down, across) if factor.turned else (across, down)
        depth, width = frame.number(v.width), frame.number(node.width)
        panel = here.mul(frame.index("packed", Size(v.width)), frame.index("panel"))
        source = frame.pointer("window", factor.matrix, Size(factor.row), Size(factor.column))
        here.call(pack, [source, by_k, by_n, depth, width, frame.pointer("panels", number, term), panel])
        here.branch(function.blocks[1])
    ir.IRBuilder(end).ret_void()
    frame.begin(function.blocks[1])
    return tuple(frame.names)


class _Writer:
    """Writes the function that every thread runs."""

    def __init__(
        self,
        module: ir.Module,
        plan: Plan,
        states: Sequence[int],
        real: str,
        lanes: int,
        products: Products,
        outputs: Mapping[int, tuple[str, int]],
        partial: frozenset[tuple[str, int | str]],
        saved: Mapping[Node, int],
        first: Sequence[Name],
        own: tuple[Target, int] | None,
    ) -> None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), ENTRY)
        self.frame = Frame(function, first)
        thread = self.frame.builder.atomic_rmw("add", self.frame.slot("threads"), INDEX(1), "monotonic")
        begin = self.frame.builder.mul(thread, self.frame.index("scratch_bytes"))
        self._own = self.frame.builder.gep(self.frame.pointer("scratch"), [begin], source_etype=ir.IntType(8))
        self.builder = ir.IRBuilder(function.append_basic_block("start"))
        self._flushed = Flushed(self.builder)
        self._unit = amx.Configured(self.builder) if products.split else None
        self.lanes = Lanes(self.builder, real, lanes)
        self.plan = plan
        self.states = states
        self.partial = partial
        self.places: dict[Name, ir.Value] = {}
        self._lines = OwnLines(self.lanes, self.frame, thread, *own) if own else None
        given = outputs, partial, saved, self._lines
        self.passes = Passes(self.lanes, self.frame, plan, states, products, self.scratch, *given)

    def scratch(self, name: Name) -> ir.Value:
        """Return where a buffer of this thread begins."""
        if name not in self.places:
            offset = self.frame.index("offset", *name)
            self.places[name] = self.frame.builder.gep(self._own, [offset], source_etype=ir.IntType(8))
        return self.places[name]

    def forward(self) -> None:
        with self._blocks() as (item, count, table):
            current, following = self._both_states()
            running = self._running(INDEX(0), item)
            for index, _ in enumerate(self.states):
                self._copy(index, "initial", current[index], INDEX(0), count, table, load=True)
                self._copy(index, "final", current[index], running, count, table, load=False)
            with steps(self.builder, INDEX(0), self.frame.index("steps"), 1, [*current, *following]) as time:
                now, then = time.carried[: len(self.states)], time.carried[len(self.states) :]
                rows = self._running(time.counter, item)
                self._reset(now, rows, table, time.counter)
                line = self._ahead(time.counter, item, table)
                self._stages(item, time.counter, rows, line, now, then, table)
                left = self._running(self.builder.add(time.counter, INDEX(1)), item)
                for index, _ in enumerate(self.states):
                    self._copy(index, "final", then[index], left, rows, table, load=False)
                time.following = [*then, *now]

    def backward(self) -> None:
        b = self.builder
        with self._blocks() as (item, count, table):
            current, following = self._both_states()
            length, states = self.frame.index("steps"), len(self.states)
            none = [INDEX(0), ir.IntType(1)(False)]
            with steps(b, INDEX(0), length, 1, [*current, *following, *none]) as turn:
                now, then, (line, begun) = turn.carried[:states], turn.carried[states:-2], turn.carried[-2:]
                later = b.sub(length, turn.counter)
                time = b.sub(later, INDEX(1))
                rows = self._running(time, item)
                for index, _ in enumerate(self.states):
                    self._copy(index, "final", now[index], self._running(later, item), rows, table, load=True)
                self._clear_partial(then, rows, table)
                if self._lines:
                    line, begun = self._lines.room(line, begun, rows, item)
                    self._note(self._lines, line, rows, time, table)
                self._stages(item, time, rows, line, now, then, table)
                self._reset_gradient(then, rows, table, time)
                turn.following = [*then, *now, b.add(line, rows), begun]
            if self._lines:
                line, begun = turn.carried[-2:]
                self._lines.end(line, begun, item)
            running = self._running(INDEX(0), item)
            for index, _ in enumerate(self.states):
                last = turn.carried[index]
                self._copy(index, "final", last, running, count, table, load=True)
                self._copy(index, "initial", last, INDEX(0), count, table, load=False)

    def _note(self, lines: OwnLines, before: ir.Value, rows: ir.Value, time: ir.Value, table: ir.Value) -> None:
        """Note the lines of a step's rows, `before` which there are so many."""
        with self._rows(INDEX(0), rows, table) as (row, number):
            lines.note(self.builder.add(before, row), time, number)

    @contextmanager
    def _blocks(self) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
        """Take blocks of rows until none is left; yield a block's number, its rows, and the table of their numbers."""
        b = self.builder
        blocks = self.frame.index("blocks")
        with taking(b, self.frame, blocks) as item:
            count = self._share(self.frame.index("rows"), item)
            table = self.scratch(("table", 0))
            with steps(b, INDEX(0), count, 1) as row:
                rank = b.add(item, b.mul(row.counter, blocks))
                number = b.load(b.gep(self.frame.pointer("order"), [rank], source_etype=INDEX), align=8, typ=INDEX)
                b.store(number, b.gep(table, [row.counter], source_etype=INDEX), align=8)
            yield item, count, table
        if self._unit:
            self._unit.end()
        self._flushed.end()
        if self.passes.large:
            b.fence("seq_cst")  # what went past the cache is there
        b.ret_void()
        self.frame.begin(b.function.blocks[1])

    def _share(self, rows: ir.Value, item: ir.Value) -> ir.Value:
        """Return how many of the first `rows` ranks fall to a block: every `blocks`-th, from its number on."""
        b, blocks = self.builder, self.frame.index("blocks")
        return b.sdiv(b.sub(b.add(rows, blocks), b.add(item, INDEX(1))), blocks)

    def _running(self, time: ir.Value, item: ir.Value) -> ir.Value:
        """Return how many rows of a block have a step `time`: rows are ranked by length, longest first."""
        b = self.builder
        active = b.load(b.gep(self.frame.pointer("active"), [time], source_etype=INDEX), align=8, typ=INDEX)
        return self._share(active, item)

    def _both_states(self) -> tuple[list[ir.Value], list[ir.Value]]:
        numbers = range(len(self.states))
        return [self.scratch(("now", i)) for i in numbers], [self.scratch(("then", i)) for i in numbers]

    def _ahead(self, time: ir.Value, item: ir.Value, table: ir.Value) -> ir.Value:
        ahead, products = self.passes.ahead, self.passes.products
        if not ahead:
            return INDEX(0)
        assert products.packed is not None, "a plan for matrices as they stand takes no steps ahead"
        return ahead.emit(time, table, lambda t: self._running(t, item), products.packed, products.split)

    def _stages(
        self, item: ir.Value, time: ir.Value, rows: ir.Value, line: ir.Value, now: list[ir.Value],
        then: list[ir.Value], table: ir.Value,
    ) -> None:  # fmt: skip
        at = Moment(item, time, rows, line, dict(enumerate(now)), dict(enumerate(then)))
        for stage in self.plan.stages:
            self.passes.emit(stage, at, table)

    def _state_row(self, base: ir.Value, index: int, row: ir.Value) -> ir.Value:
        return strided(self.lanes, base, row, self.frame.index("state_stride", index))

    def _outside_row(self, kind: str, index: int, number: ir.Value) -> ir.Value:
        base = self.frame.pointer("buffer", kind, index)
        return strided(self.lanes, base, number, self.frame.index("row_stride", kind, index))

    @contextmanager
    def _rows(self, start: ir.Value, stop: ir.Value, table: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Loop over a block's rows; yield each one's place in scratch and its number."""
        b = self.builder
        with steps(b, start, stop, 1) as row:
            yield row.counter, b.load(b.gep(table, [row.counter], source_etype=INDEX), align=8, typ=INDEX)

    @contextmanager
    def _vectors(self, width: int) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Loop over the vectors of a row; yield the first unit of each and the mask of those that are real."""
        b, size = self.builder, self.frame.number(width)
        with steps(b, INDEX(0), b.add(size, INDEX(self.lanes.count - 1)), self.lanes.count) as vector:
            yield vector.counter, self.lanes.first(b.sub(size, vector.counter))

    def _copy(
        self, index: int, kind: str, local: ir.Value, start: ir.Value, stop: ir.Value, table: ir.Value, *, load: bool
    ) -> None:
        """Copy a state of some rows from the caller's memory, or to it."""
        with self._rows(start, stop, table) as (row, number):
            ours, theirs = self._state_row(local, index, row), self._outside_row(kind, index, number)
            with self._vectors(self.states[index]) as (unit, mask):
                here, there = after(self.lanes, ours, unit), after(self.lanes, theirs, unit)
                if load:
                    self.lanes.store(self.lanes.masked_load(there, mask), here)
                else:
                    self.lanes.masked_store(self.lanes.load(here), there, mask)

    @contextmanager
    def _where_reset(self, rows: ir.Value, table: ir.Value, time: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
        """Do something for each row that begins anew before step `time`."""
        b, flags = self.builder, self.frame.pointer("buffer", "resets", 0)
        some = b.icmp_unsigned("!=", b.ptrtoint(flags, INDEX), INDEX(0))
        with b.if_then(some), self._rows(INDEX(0), rows, table) as (row, number):
            at = b.add(
                b.mul(number, self.frame.index("row_stride", "resets", 0)),
                b.mul(time, self.frame.index("step_stride", "resets", 0)),
            )
            flag = b.load(b.gep(flags, [at], source_etype=ir.IntType(8)), align=1, typ=ir.IntType(8))
            with b.if_then(b.icmp_unsigned("!=", flag, ir.IntType(8)(0))):
                yield row, number

    def _reset(self, now: list[ir.Value], rows: ir.Value, table: ir.Value, time: ir.Value) -> None:
        with self._where_reset(rows, table, time) as (row, number):
            for index, width in enumerate(self.states):
                ours, fresh = self._state_row(now[index], index, row), self._outside_row("fresh", index, number)
                with self._vectors(width) as (unit, mask):
                    value = self.lanes.masked_load(after(self.lanes, fresh, unit), mask)
                    self.lanes.store(value, after(self.lanes, ours, unit))

    def _reset_gradient(self, then: list[ir.Value], rows: ir.Value, table: ir.Value, time: ir.Value) -> None:
        """Where the state was replaced, its gradient goes to what replaced it."""
        with self._where_reset(rows, table, time) as (row, number):
            for index, width in enumerate(self.states):
                ours, fresh = self._state_row(then[index], index, row), self._outside_row("fresh", index, number)
                with self._vectors(width) as (unit, mask):
                    here, there = after(self.lanes, ours, unit), after(self.lanes, fresh, unit)
                    total = self.lanes.add(self.lanes.masked_load(there, mask), self.lanes.load(here))
                    self.lanes.masked_store(total, there, mask)
                    self.lanes.store(self.lanes.const(0.0), here)

    def _clear_partial(self, then: list[ir.Value], rows: ir.Value, table: ir.Value) -> None:
        """Begin a gradient that is added up window by window at zero."""
        for index, width in enumerate(self.states):
            if ("state", index) not in self.partial:
                continue
            with self._rows(INDEX(0), rows, table) as (row, _):
                ours = self._state_row(then[index], index, row)
                with self._vectors(width) as (unit, _):
                    self.lanes.store(self.lanes.const(0.0), after(self.lanes, ours, unit))
