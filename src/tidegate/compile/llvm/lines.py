"""Sums over lines, Pᵀ Q, on the matrix unit, as IR: how all rows and steps together make a matrix's gradient."""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from tidegate.compile.llvm import amx
from tidegate.compile.llvm.amx import DEEP, LANES, PANEL, ROWS, TILE
from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.frame import Frame, taking
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.panels import define, transposed
from tidegate.compile.llvm.subnormal import Flushed
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import after, blocks, every, steps, strided

ENTRY = "sum_lines"

AT_ONCE = 96
"""So many lines are torn at a time, a multiple of 32: with more, less stays in the cache; 256 take a tenth longer."""

SLOTS = (
    "threads", "taken", "shares", "high", "rows", "columns", "lines", "first", "first_stride", "second",
    "second_stride", "result", "result_stride", "scratch", "scratch_numbers", "tile_numbers", "at_once", "in_order",
)  # fmt: skip
"""What stands in the argument of `sum_lines`, in order."""

_TEAR = [POINTER, POINTER, INDEX, INDEX, INDEX, POINTER, INDEX]


@cache
def compiled(target: Target, parts: int) -> int:
    """Return the address of `void sum_lines(argument)`, to be called by every thread with what `SLOTS` names.

    Threads take shares of the result, `high` of its `rows`, of which there are so many `shares`. P [lines, rows] and
    Q [lines, columns] have unit stride over columns; the result is written to whole tiles, 16 rows and 32 columns.
    `at_once` lines are torn at a time, a multiple of 32; a thread has `scratch_numbers`, of which `tile_numbers` for P.
    `in_order` are the numbers 0, 1, … below `at_once`; `threads` and `taken` counters, from 0. Lines are added
    in their order, whatever the shares are.
    """
    amx.compiled(target, parts)
    text = written(f"lines of float in {parts}", lambda: str(_module(target, parts)))
    return compile_module(text, (ENTRY,), target).addresses[ENTRY]


def _module(target: Target, parts: int) -> ir.Module:
    module = ir.Module(f"lines of float in {parts}")
    module.triple = target.triple
    product = amx.declare_tile_product(module, parts)
    turn, take = define_turning(module, parts), define_taking(module, parts)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), ENTRY)
    frame = Frame(function, [(slot,) for slot in SLOTS])
    _Writer(frame, parts, turn, take, product).write()
    return module


class _Writer:
    def __init__(self, frame: Frame, parts: int, turn: ir.Function, take: ir.Function, product: ir.Function) -> None:
        self.frame = frame
        self.parts = parts
        self.turn, self.take, self.product = turn, take, product
        self.builder = ir.IRBuilder(frame.builder.function.append_basic_block("start"))
        self.lanes = Lanes(self.builder, "float", LANES)

    def write(self) -> None:
        b, frame = self.builder, self.frame
        entry = frame.builder
        thread = entry.atomic_rmw("add", frame.slot("threads"), INDEX(1), "monotonic")
        own = strided(Lanes(entry, "float", LANES), frame.pointer("scratch"), thread, frame.index("scratch_numbers"))
        flushed, unit = Flushed(b), amx.Configured(b)
        with taking(b, frame, frame.index("shares")) as item:
            self._part(own, item)
        unit.end()
        flushed.end()
        b.ret_void()
        frame.begin(b.function.blocks[1])

    def _part(self, tiles: ir.Value, number: ir.Value) -> None:
        b, lanes, frame = self.builder, self.lanes, self.frame
        top, stride, columns = b.mul(number, frame.index("high")), frame.index("result_stride"), frame.index("columns")
        high = self._least(b.sub(frame.index("rows"), top), frame.index("high"))
        corner = strided(lanes, frame.pointer("result"), top, stride)
        panels = after(lanes, tiles, frame.index("tile_numbers"))
        lines, at_once = frame.index("lines"), frame.index("at_once")
        turns = b.udiv(b.add(lines, b.sub(at_once, INDEX(1))), at_once)
        with steps(b, INDEX(0), turns, 1) as turn:
            line = b.mul(turn.counter, at_once)
            depth = self._least(b.sub(lines, line), at_once)
            deep = blocks(b, depth, DEEP)
            panel_stride = b.mul(deep, INDEX(2 * self.parts * TILE))
            first, second = (
                strided(lanes, frame.pointer(name), line, frame.index(f"{name}_stride")) for name in ("first", "second")
            )
            first = after(lanes, first, top)
            order = frame.pointer("in_order")
            b.call(self.turn, [first, order, frame.index("first_stride"), depth, high, tiles, INDEX(0)])
            b.call(self.take, [second, order, frame.index("second_stride"), depth, columns, panels, panel_stride])
            adds = b.icmp_signed(">", line, INDEX(0))
            right = [panels, panel_stride, blocks(b, columns, PANEL)]
            b.call(self.product, [high, depth, tiles, *right, corner, stride, INDEX(PANEL), adds])

    def _least(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)


def define_turning(module: ir.Module, parts: int) -> ir.Function:
    """Define `void turn(float* P, i64* positions, i64 stride, i64 lines, i64 columns, void* tiles, …)`.

    It tears Pᵀ as `split` does. Line number l stands `positions[l]` strides from P on; `positions` are read up to whole
    tiles.
    """
    function = define(module, "turn", _TEAR, pointers=(0, 1, 5))
    function.attributes.add("noinline")
    source, positions, stride, lines, columns, tiles, _ = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    b = lanes.builder
    deep = blocks(b, lines, DEEP)
    with steps(b, INDEX(0), deep, 1) as block, steps(b, INDEX(0), blocks(b, columns, ROWS), 1) as group:
        column, line = b.mul(group.counter, INDEX(ROWS)), b.mul(block.counter, INDEX(DEEP))
        corner, at = after(lanes, source, column), b.gep(positions, [line], source_etype=INDEX)
        left = [b.sub(columns, column), b.sub(lines, line)]
        halves = [
            transposed(lanes, [_read(lanes, corner, at, stride, k, *left) for k in range(begin, begin + LANES)])
            for begin in (0, LANES)
        ]
        number = b.add(b.mul(group.counter, deep), block.counter)
        tile = strided(lanes, tiles, number, INDEX(parts * TILE))
        for low, high, place in zip(*halves, every(lanes, tile, INDEX(LANES), ROWS), strict=True):
            amx.store_parts(lanes, low, high, place, TILE, parts)
    b.ret_void()
    return function


def define_taking(module: ir.Module, parts: int) -> ir.Function:
    """Define `void take(float* Q, i64* positions, i64 stride, i64 lines, i64 columns, void* panels, i64 panel_stride)`.

    It makes what `tile_pack` makes, of a matrix whose lines have unit stride, and stand as `turn` has them.
    """
    function = define(module, "take", _TEAR, pointers=(0, 1, 5))
    function.attributes.add("noinline")
    source, positions, stride, lines, columns, panels, panel_stride = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    b = lanes.builder
    with steps(b, INDEX(0), blocks(b, lines, DEEP), 1) as block, steps(b, INDEX(0), INDEX(ROWS), 1) as row:
        line = b.add(b.mul(block.counter, INDEX(DEEP)), row.counter)
        at, left = b.gep(positions, [line], source_etype=INDEX), b.sub(lines, line)
        tile = strided(lanes, panels, block.counter, INDEX(2 * parts * TILE))
        target = strided(lanes, tile, row.counter, INDEX(LANES))
        with steps(b, INDEX(0), blocks(b, columns, PANEL), 1, [source, target]) as panel:
            corner, place = panel.carried
            panel.following = [after(lanes, corner, INDEX(PANEL)), after(lanes, place, panel_stride)]
            rest = b.sub(columns, b.mul(panel.counter, INDEX(PANEL)))
            for half in range(2):
                here = after(lanes, corner, INDEX(half * LANES))
                wide = b.sub(rest, INDEX(half * LANES))
                low, high = (_read(lanes, here, at, stride, k, wide, left) for k in (0, LANES))
                amx.store_parts(lanes, low, high, after(lanes, place, INDEX(half * TILE)), 2 * TILE, parts)
    b.ret_void()
    return function


def _read(
    lanes: Lanes, corner: ir.Value, positions: ir.Value, stride: ir.Value, line: int, columns: ir.Value, lines: ir.Value
) -> ir.Value:
    """Return what stands in a line, zeros beyond so many columns and lines; the next tile's line will be near."""
    b = lanes.builder
    mask = lanes.first(b.select(b.icmp_signed(">", lines, INDEX(line)), columns, INDEX(0)))
    position = b.load(b.gep(positions, [INDEX(line)], source_etype=INDEX), align=8, typ=INDEX)
    place = strided(lanes, corner, position, stride)
    lanes.prefetch(strided(lanes, place, INDEX(DEEP), stride), write=False)
    return lanes.masked_load(place, mask)
