"""One stage of a plan as IR: products into tiles, then the elementwise part, row by row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llvmlite import ir

from tidegate.compile.graph import REDUCTIONS, Factor, Node
from tidegate.compile.llvm.ahead import Ahead
from tidegate.compile.llvm.elementary import FUNCTIONS
from tidegate.compile.llvm.frame import Frame, Size
from tidegate.compile.llvm.lanes import INDEX, Lanes
from tidegate.compile.llvm.moment import Here, Moment
from tidegate.compile.llvm.own_lines import OwnLines
from tidegate.compile.llvm.panels import counted
from tidegate.compile.llvm.tile import after, steps, strided
from tidegate.compile.llvm.writes import Write, Writes
from tidegate.compile.stages import Plan, Stage, Target

LOGIC = {"and": "logical_and", "or": "logical_or", "not": "logical_not"}


@dataclass(frozen=True)
class Products:
    """The functions that multiply rows: by packed panels, which may want rows torn into tiles by `split` before.

    Or else `standing`, by matrices as they stand, turned or not.
    """

    packed: ir.Function | None = None
    split: ir.Function | None = None
    standing: Mapping[bool, ir.Function] = field(default_factory=dict)


class Passes:
    """Writes the stages of one plan. `scratch` gives the address of a buffer of the thread's own, by name.

    `outputs`: the buffer of what a state gives out (forward), or of its gradient (backward). `partial` are the targets
    whose windows overlap or leave gaps: they start from zero and are added to. `saved` nodes are read, by number. Where
    a thread has lines of its `own`, it keeps there what would go to the buffer `outer`.
    """

    def __init__(
        self,
        lanes: Lanes,
        frame: Frame,
        plan: Plan,
        states: Sequence[int],
        products: Products,
        scratch: Callable[[tuple[Any, ...]], ir.Value],
        outputs: Mapping[int, tuple[str, int]],
        partial: frozenset[tuple[str, int | str]],
        saved: Mapping[Node, int],
        own: OwnLines | None = None,
    ) -> None:
        self.lanes = lanes
        self.builder = lanes.builder
        self.frame = frame
        self.plan = plan
        self.states = states
        self.products = products
        self.scratch = scratch
        self.outputs = outputs
        self.partial = partial
        self.saved = saved
        self.own = own
        self.is_reverse = ("out_gradient", 0) in outputs.values()
        self.large: ir.Value | None = None
        if lanes.fills_line and products.packed and not self.is_reverse:
            self.large = frame.builder.icmp_signed("!=", frame.index("large"), INDEX(0))
        self.numbers = {node: number for number, node in enumerate(plan.scratch)}
        self.ahead = Ahead(lanes, frame, plan, scratch)
        rows = [v for node in plan.products for term, v in self._late(node)]
        self.torn = {v: number for number, v in enumerate(dict.fromkeys(rows))} if products.split else {}

    def emit(self, stage: Stage, at: Moment, table: ir.Value) -> None:
        """Write one stage."""
        b, frame = self.builder, self.frame
        width, block = frame.number(stage.width), frame.index("block")
        for node in stage.reductions:
            with steps(b, INDEX(0), at.rows, 1) as row:
                self.lanes.store(self._neutral(node), self._sums(node, row.counter))
        self._tear(stage, at)
        blocks = b.udiv(b.add(width, b.sub(block, INDEX(1))), block)
        with steps(b, INDEX(0), blocks, 1) as turn:
            first = b.mul(turn.counter, block)
            left = b.sub(width, first)
            units = b.select(b.icmp_signed("<", left, block), left, block)
            for node in stage.products:
                self._multiply(node, at, first, units)
            with steps(b, INDEX(0), at.rows, 1) as row:
                index = b.load(b.gep(table, [row.counter], source_etype=INDEX), align=8, typ=INDEX)
                end = b.add(units, INDEX(self.lanes.count - 1))
                sums = [self._sums(node, row.counter) for node in stage.reductions]
                begun = [self.lanes.load(place) for place in sums]
                with steps(b, INDEX(0), end, self.lanes.count, begun) as vector:
                    unit = b.add(first, vector.counter)
                    real = b.sub(width, unit)
                    whole = b.icmp_signed(">=", real, INDEX(self.lanes.count))
                    here = Here(row.counter, index, unit, self.lanes.first(real), whole)
                    vector.following = _Body(self, stage, at, here, vector.counter).emit(vector.carried)
                for place, total in zip(sums, vector.carried, strict=True):
                    self.lanes.store(total, place)
        for node in stage.reductions:
            with steps(b, INDEX(0), at.rows, 1) as row:
                sums = self.lanes.load(self._sums(node, row.counter))
                folded = self.lanes.sum(sums) if node.op == "sum" else self.lanes.maximum_of(sums)
                self.lanes.store(self.lanes.splat(folded), self.kept(node, row.counter, INDEX(0)))

    def stride(self, node: Node) -> ir.Value:
        """Return how far apart rows of a node's width stand in scratch."""
        return self.frame.index("stride", Size(node.width))

    def kept(self, node: Node, row: ir.Value, unit: ir.Value) -> ir.Value:
        """Return where unit `unit` of a kept node stands in scratch."""
        base = self.scratch(("kept", self.numbers[node], Size(node.width)))
        return after(self.lanes, strided(self.lanes, base, row, self.stride(node)), unit)

    def joined(self, node: Node, here: Here, total: ir.Value, value: ir.Value) -> ir.Value:
        """Return a reduction so far with one vector more."""
        kept = self.lanes.select(here.mask, value, self._neutral(node))
        join = self.lanes.add if node.op == "sum" else self.lanes.maximum
        return join(total, kept)

    def _sums(self, node: Node, row: ir.Value) -> ir.Value:
        base = self.scratch(("sums", self.numbers[node], self.lanes.count))
        return strided(self.lanes, base, row, INDEX(self.lanes.count))

    def _neutral(self, node: Node) -> ir.Value:
        return self.lanes.const(0.0 if node.op == "sum" else float("-inf"))

    def tile(self, node: Node, at: Moment, row: ir.Value, first: ir.Value, unit: ir.Value) -> ir.Value:
        """Return where unit `unit` of the product of the block from `first` on stands."""
        if node in self.ahead.terms:
            return self.ahead.place(node, self.builder.add(at.line, row), self.builder.add(first, unit))
        base = self.scratch(("tile", self.plan.products.index(node), "block"))
        return after(self.lanes, strided(self.lanes, base, row, self.frame.index("block")), unit)

    def _multiply(self, node: Node, at: Moment, first: ir.Value, units: ir.Value) -> None:
        number, early = self.plan.products.index(node), node in self.ahead.terms
        stride, begun = self.ahead.line(node) if early else self.frame.index("block"), early
        for term, v in self._late(node):
            tile, factor = self.tile(node, at, INDEX(0), first, INDEX(0)), node.attributes[term]
            left = [at.rows, self.frame.number(v.width)]
            left += [self._torn(v)] if v in self.torn else [self._rows(v, at), self._row_stride(v)]
            adds, begun = ir.IntType(1)(begun), True
            if self.products.packed:
                panels = self._panels(number, term, v, first, units)
                result = [tile, stride, INDEX(2 * self.lanes.count), adds]
                self.builder.call(self.products.packed, [*left, *panels, *result])
            else:
                matrix = self._window(factor, first)
                self.builder.call(self.products.standing[factor.turned], [*left, *matrix, units, tile, stride, adds])

    def _late(self, node: Node) -> list[tuple[int, Node]]:
        """Return the terms of a product that are not computed ahead, and what rows they multiply."""
        early = self.ahead.terms.get(node, [])
        return [(term, v) for term, v in enumerate(node.inputs) if term not in early]

    def _tear(self, stage: Stage, at: Moment) -> None:
        """Split the rows that a stage multiplies, once for all products and blocks."""
        for v in dict.fromkeys(v for node in stage.products for _, v in self._late(node) if v in self.torn):
            rows = [self._rows(v, at), self._row_stride(v), self._torn(v)]
            self.builder.call(self.products.split, [at.rows, self.frame.number(v.width), *rows])

    def _torn(self, v: Node) -> ir.Value:
        return self.scratch(("torn", self.torn[v], Size(v.width)))

    def _panels(
        self, number: int, term: int, v: Node, first: ir.Value, units: ir.Value
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return where the panels of the units from `first` on begin, how far they are apart, and how many they are."""
        b, panel, depth = self.builder, INDEX(2 * self.lanes.count), self.frame.index("packed", Size(v.width))
        begin = after(self.lanes, self.frame.pointer("panels", number, term), b.mul(first, depth))
        return begin, b.mul(depth, panel), counted(self.lanes, units, self.products.split)

    def _window(self, factor: Factor, first: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return where a matrix's columns from `first` on begin as they stand, and how far its lines are apart."""
        line = self.frame.index("row_stride", "matrix", factor.matrix)
        row, column = self.frame.number(factor.row), self.frame.number(factor.column)
        corner = strided(self.lanes, self.frame.pointer("matrix", factor.matrix), row, line)
        begin = after(self.lanes, corner, column)
        return strided(self.lanes, begin, first, line if factor.turned else INDEX(1)), line

    def _rows(self, v: Node, at: Moment) -> ir.Value:
        if v in self.numbers:
            return self.kept(v, INDEX(0), INDEX(0))
        index, offset = v.attributes
        return after(self.lanes, at.current[index], self.frame.number(offset))

    def _row_stride(self, v: Node) -> ir.Value:
        return self.stride(v) if v in self.numbers else self.frame.index("state_stride", v.attributes[0])

    def outside(self, kind: str, name: int | str, here: Here, at: Moment) -> ir.Value:
        """Return where a row of one of the caller's buffers begins, at this step."""
        if kind == "outer" and self.own:
            return self.own.line(at.line, here.row, name)
        base = self.frame.pointer("buffer", kind, name)
        if kind == "shared":
            return base
        number = at.item if kind == "shared_gradient" else here.index
        row = strided(self.lanes, base, number, self.frame.index("row_stride", kind, name))
        still = kind in ("row", "shared_gradient")
        return row if still else strided(self.lanes, row, at.time, self.frame.index("step_stride", kind, name))


class _Body:
    """The elementwise part of a stage on one vector."""

    def __init__(self, passes: Passes, stage: Stage, at: Moment, here: Here, in_block: ir.Value) -> None:
        self.p = passes
        self.lanes = passes.lanes
        self.builder = passes.builder
        self.stage = stage
        self.at = at
        self.here = here
        self.in_block = in_block
        self.values: dict[Node, ir.Value] = {}
        self.writes = Writes(passes.lanes, here.whole, here.mask, passes.large)

    def emit(self, sums: Sequence[ir.Value]) -> list[ir.Value]:
        """Write it; return the stage's reductions, which were `sums` before, with this vector."""
        for node in self.stage.products:
            first = self.builder.sub(self.here.unit, self.in_block)
            place = self.p.tile(node, self.at, self.here.row, first, self.in_block)
            self.values[node] = self.lanes.load(place)
        for node in self.stage.nodes:
            self.values[node] = self._compute(node)
        added = [
            self.p.joined(node, self.here, total, self._number(node.inputs[0]))
            for node, total in zip(self.stage.reductions, sums, strict=True)
        ]
        for node in self.stage.kept:
            if node.op not in REDUCTIONS:
                self.lanes.store(self._number(node), self.p.kept(node, self.here.row, self.here.unit))
        for node, target in self.stage.stores:
            self._store(self._number(node), target, node.width)
        self.writes.finish()
        return added

    def _compute(self, node: Node) -> ir.Value:
        lanes = self.lanes
        if node.op == "where":
            mask, a, b = node.inputs
            return lanes.select(self._mask(mask), self._number(a), self._number(b))
        if node.op in LOGIC:
            return getattr(lanes, LOGIC[node.op])(*(self._mask(i) for i in node.inputs))
        values = [self._number(i) for i in node.inputs]
        if node.op in ("stop", "wide"):
            return values[0]
        if node.op == "standardised":
            return lanes.mul(lanes.sub(values[0], values[1]), values[2])
        if node.op in FUNCTIONS:
            return FUNCTIONS[node.op](lanes, *values)
        return getattr(lanes, node.op)(*values)

    def _number(self, node: Node) -> ir.Value:
        """Return a node's value as numbers, masks as 1 and 0."""
        value = self._value(node)
        if node.is_mask and value.type == self.lanes.mask_type:
            return self.lanes.select(value, self.lanes.const(1.0), self.lanes.const(0.0))
        return value

    def _mask(self, node: Node) -> ir.Value:
        value = self._value(node)
        return value if value.type == self.lanes.mask_type else self.lanes.not_equal(value, self.lanes.const(0.0))

    def _value(self, node: Node) -> ir.Value:
        if node not in self.values:
            self.values[node] = self._read(node)
        return self.values[node]

    def _read(self, node: Node) -> ir.Value:
        if node.op == "const":
            return self.lanes.const(node.attributes[0])
        if node.op == "share":
            width = self.builder.sitofp(self.p.frame.number(node.attributes[0]), self.lanes.scalar_type)
            one = ir.Constant(self.lanes.scalar_type, 1.0)
            return self.lanes.splat(self.builder.fdiv(one, width))
        wide = node.width == self.stage.width
        unit = self.here.unit if wide else INDEX(0)
        place = self._place(node, unit)
        if place is not None:
            return self.lanes.load(place) if wide else self._splat(place)
        if node.op == "grad":
            return self._gradient(node, unit, wide)
        return self._outside(*self._buffer(node), unit, wide)

    def _place(self, node: Node, unit: ir.Value) -> ir.Value | None:
        """Return where in scratch a node stands, if it does."""
        p = self.p
        if node in p.plan.views:
            product, offset = p.plan.views[node]
            return p.kept(product, self.here.row, self.builder.add(unit, p.frame.number(offset)))
        if node in p.numbers and node not in self.stage.kept:
            return p.kept(node, self.here.row, unit)
        if node.op == "state" and node.attributes[0] in self.at.current and not self._is_saved(node):
            index, offset = node.attributes
            return self._state(self.at.current[index], index, offset, unit)
        return None

    def _is_saved(self, node: Node) -> bool:
        return node in self.p.saved

    def _state(self, base: ir.Value, index: int, offset: int, unit: ir.Value) -> ir.Value:
        row = strided(self.lanes, base, self.here.row, self.p.frame.index("state_stride", index))
        return after(self.lanes, row, self.builder.add(unit, self.p.frame.number(offset)))

    def _buffer(self, node: Node) -> tuple[str, int | str, int]:
        if self._is_saved(node):
            return ("saved", self.p.saved[node], 0)
        name, offset = node.attributes
        return (node.op, name, offset)

    def _outside(self, kind: str, name: int | str, offset: int, unit: ir.Value, wide: bool) -> ir.Value:
        row = self.p.outside(kind, name, self.here, self.at)
        place = after(self.lanes, row, self.builder.add(unit, self.p.frame.number(offset)))
        if wide and kind in ("step", "out_gradient", "saved"):
            # Rows far apart in memory are not foreseen by the machine.
            self.lanes.prefetch(self._following(kind, name, place), write=False)
        return self.lanes.masked_load(place, self.here.mask) if wide else self._splat(place)

    def _following(self, kind: str, name: int | str, place: ir.Value) -> ir.Value:
        """Return what the next step will read or write where this one does so at `place`."""
        stride = self.p.frame.index("step_stride", kind, name)
        step = self.builder.neg(stride) if self.p.is_reverse else stride
        return self.builder.gep(place, [step], source_etype=self.lanes.scalar_type)

    def _gradient(self, node: Node, unit: ir.Value, wide: bool) -> ir.Value:
        """Return the gradient that reaches a new state: from later steps, and from what was given out."""
        index, offset = node.attributes
        place = self._state(self.at.current[index], index, offset, unit)
        value = self.lanes.load(place) if wide else self._splat(place)
        if index in self.p.outputs:
            value = self.lanes.add(value, self._outside(*self.p.outputs[index], offset, unit, wide))
        return value

    def _splat(self, place: ir.Value) -> ir.Value:
        scalar = self.builder.load(place, align=self.lanes.bytes, typ=self.lanes.scalar_type)
        return self.lanes.splat(scalar)

    def _store(self, value: ir.Value, target: Target, width: int) -> None:
        kind, name, offset = target
        added = (kind, name) in self.p.partial
        if kind == "state":
            assert isinstance(name, int)
            place = self._state(self.at.following[name], name, offset, self.here.unit)
            if width == self.p.states[name] and not added:
                self.lanes.store(value, place)  # over the end of the row, where it is padded
            else:
                self.writes.found.append(Write(value, place, added))
            if name in self.p.outputs and self.p.outputs[name][0] == "out":
                self._put(value, *self.p.outputs[name], offset, False)
        else:
            self._put(value, kind, name, offset, added or kind == "shared_gradient")

    def _put(self, value: ir.Value, kind: str, name: int | str, offset: int, added: bool) -> None:
        row = self.p.outside(kind, name, self.here, self.at)
        place = after(self.lanes, row, self.builder.add(self.here.unit, self.p.frame.number(offset)))
        kept = kind in ("saved", "out")
        far = kept or kind == "step_gradient" or (kind == "outer" and not self.p.own)
        following = self._following(kind, name, place) if far else None
        self.writes.found.append(Write(value, place, added, following, past_cache=kept))
