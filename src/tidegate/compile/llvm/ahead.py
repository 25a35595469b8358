"""What products with inputs contribute, for a few steps ahead, as IR.

Inputs are known before the recurrence comes to them. Multiplied for several steps at once, more rows share each panel
that is read: it matters where rows are few, or where panels do not stay in the cache from step to step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from llvmlite import ir

from tidegate.compile.graph import Node
from tidegate.compile.llvm import amx
from tidegate.compile.llvm.frame import Frame, Size
from tidegate.compile.llvm.lanes import INDEX, Lanes
from tidegate.compile.llvm.panels import counted
from tidegate.compile.llvm.tile import after, blocks, steps, strided
from tidegate.compile.stages import Plan

AHEAD = 32
"""For so many steps what inputs contribute is computed at once."""

AHEAD_TILES = 4
"""The same for the matrix unit, which few rows fill: what is computed stays in the cache."""

Scratch: TypeAlias = Callable[[tuple[Any, ...]], ir.Value]


class Ahead:
    """The terms of a plan's products that are known ahead, and where a thread keeps what they come to.

    Those are the ones whose input is read from the caller's memory and stands in no scratch, always the first: terms
    are added in the same order whether ahead or not. What `AHEAD` steps of a block's rows come to stands in one buffer
    for each product, a line for each row of each step.
    """

    def __init__(self, lanes: Lanes, frame: Frame, plan: Plan, scratch: Scratch) -> None:
        self._lanes = lanes
        self._frame = frame
        self._scratch = scratch
        self.terms: Mapping[Node, list[int]] = {
            node: terms
            for node in plan.products
            if (terms := [term for term, v in enumerate(node.inputs) if v.op == "step" and v not in plan.scratch])
        }
        self._numbers = {node: plan.products.index(node) for node in self.terms}
        self._inputs = list(dict.fromkeys(node.inputs[term] for node, terms in self.terms.items() for term in terms))

    def __bool__(self) -> bool:
        return bool(self.terms)

    def line(self, node: Node) -> ir.Value:
        """Return how far apart the lines of a product stand."""
        return self._frame.index("line", Size(node.width))

    def place(self, node: Node, row: ir.Value, unit: ir.Value) -> ir.Value:
        """Return where a unit of a line stands."""
        base = self._scratch(("ahead", self._numbers[node], Size(node.width)))
        return after(self._lanes, strided(self._lanes, base, row, self.line(node)), unit)

    def emit(
        self, time: ir.Value, table: ir.Value, running: Callable[[ir.Value], ir.Value], product: ir.Function,
        split: ir.Function | None,
    ) -> ir.Value:  # fmt: skip
        """Compute the lines of the steps from `time` on, where it is time to; return the first line of this step."""
        builder, chunk = self._lanes.builder, INDEX(AHEAD_TILES if split else AHEAD)
        turn = builder.urem(time, chunk)
        rows = running(builder.sub(time, turn))
        # A tile that ends one step's rows must not reach into the next one's.
        apart = builder.mul(blocks(builder, rows, amx.ROWS), INDEX(amx.ROWS)) if split else rows
        with builder.if_then(builder.icmp_signed("==", turn, INDEX(0))):
            left = builder.sub(self._frame.index("steps"), time)
            count = builder.select(builder.icmp_signed("<", left, chunk), left, chunk)
            lines = builder.mul(count, apart)
            for number, v in enumerate(self._inputs):
                self._gather(number, v, time, count, rows, apart, table)
                if split:
                    builder.call(split, [lines, self._frame.number(v.width), *self._left(v), self._torn(v)])
            for node, terms in self.terms.items():
                for term in terms:
                    left = [self._torn(node.inputs[term])] if split else self._left(node.inputs[term])
                    self._multiply(node, term, lines, left, product, split)
        return builder.mul(turn, apart)

    def _gathered(self, number: int, v: Node) -> ir.Value:
        return self._scratch(("gathered", number, Size(v.width)))

    def _left(self, v: Node) -> list[ir.Value]:
        """Return where the lines of an input stand, and how far they are apart."""
        return [self._gathered(self._inputs.index(v), v), self._frame.index("stride", Size(v.width))]

    def _torn(self, v: Node) -> ir.Value:
        return self._scratch(("torn_ahead", self._inputs.index(v), Size(v.width)))

    def _gather(
        self, number: int, v: Node, time: ir.Value, count: ir.Value, rows: ir.Value, apart: ir.Value, table: ir.Value
    ) -> None:
        """Copy what some rows read in some steps, line by line: in the caller's memory they may be far apart."""
        lanes, builder, frame = self._lanes, self._lanes.builder, self._frame
        name, offset = v.attributes
        base = after(lanes, frame.pointer("buffer", "step", name), frame.number(offset))
        across, down = (frame.index(f"{which}_stride", "step", name) for which in ("row", "step"))
        width, stride = frame.number(v.width), frame.index("stride", Size(v.width))
        with steps(builder, INDEX(0), count, 1) as step, steps(builder, INDEX(0), rows, 1) as row:
            index = builder.load(builder.gep(table, [row.counter], source_etype=INDEX), align=8, typ=INDEX)
            line = strided(lanes, strided(lanes, base, index, across), builder.add(time, step.counter), down)
            place = builder.add(builder.mul(step.counter, apart), row.counter)
            target = strided(lanes, self._gathered(number, v), place, stride)
            with steps(builder, INDEX(0), builder.add(width, INDEX(lanes.count - 1)), lanes.count) as unit:
                mask = lanes.first(builder.sub(width, unit.counter))
                lanes.store(
                    lanes.masked_load(after(lanes, line, unit.counter), mask), after(lanes, target, unit.counter)
                )

    def _multiply(
        self, node: Node, term: int, rows: ir.Value, left: list[ir.Value], product: ir.Function,
        split: ir.Function | None,
    ) -> None:  # fmt: skip
        builder, frame, panel = self._lanes.builder, self._frame, INDEX(2 * self._lanes.count)
        v, number = node.inputs[term], self._numbers[node]
        depth, width = frame.index("packed", Size(v.width)), frame.number(node.width)
        columns = counted(self._lanes, width, split)
        panels = [frame.pointer("panels", number, term), builder.mul(depth, panel), columns]
        adds = ir.IntType(1)(term != self.terms[node][0])
        result = [self.place(node, INDEX(0), INDEX(0)), self.line(node), panel, adds]
        builder.call(product, [rows, frame.number(v.width), *left, *panels, *result])
