"""Sums over lines, Pᵀ Q, that a thread adds up while it runs backward, on the matrix unit or with vectors, as IR.

A line is a row at a step. A thread adds up the lines of its own rows, some steps at a time, while what is multiplied
there is in its core's cache; what the blocks of rows come to is added in the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from llvmlite import ir

from tidegate.compile.llvm import amx
from tidegate.compile.llvm.amx import DEEP, LANES, PANEL, TILE
from tidegate.compile.llvm.engine import share
from tidegate.compile.llvm.frame import Frame
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.lines import AT_ONCE, define_taking, define_turning
from tidegate.compile.llvm.panels import define
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import after, blocks, steps, strided
from tidegate.compile.llvm.windows import Window

NOTED = 4 * AT_ONCE
"""How many float32 numbers the lines' positions take, at the beginning of a thread's memory: first those where lines
stand step by step, then those where they stand row by row."""

HEAD = ("torn", "tears", "products", "in_order", "sums", "blocks", "apart", "adds")
"""What the table begins with: from which number of a thread's memory on things are torn, how many are torn and how
many products are made of them, the address of the numbers 0, 1, … up to `AT_ONCE`; where the blocks' sums stand, how
many blocks there are, and how far their sums are apart; whether what they come to is added to what is there."""

TEAR = ("address", "begin", "stride", "columns", "by_row", "taken", "place")
"""What it says of each thing torn: the address of line 0, or 0 for the lines in the thread's own memory, and the number
it begins with there; how far lines are apart; how many columns; whether lines stand row by row; whether it is a
product's second; where it is put. With vectors it is put there as it is, line by line, and own lines stay."""

PRODUCT = (
    "first", "groups", "second", "panels", "high", "across", "sum", "stride", "result", "line", "rows", "columns",
)  # fmt: skip
"""What it says of each product: where what it multiplies was put, and how many groups of 16 columns, or panels of 32,
are left out there; how many rows, to whole tiles, and panels it has; at which number of a block's sums it is added, and
how far lines are apart there; the address of its result, how far lines are apart there, and how many rows and columns
that has. With vectors: at which number of a thread's memory it stands, and in place of `groups` and `panels` how far
lines are apart there."""

_TAKES = [INDEX, POINTER, POINTER, INDEX, ir.IntType(1)]


@cache
def compiled(target: Target, parts: int) -> int:
    """Compile what `declare` declares; return the address of `void join(i64* table)`.

    That one adds up what all blocks came to. In 0 parts, vectors multiply, else the matrix unit.
    """
    if parts:
        amx.compiled(target, parts)
    text = written(f"own lines of float in {parts} for {target.isa}", lambda: str(_module(target, parts)))
    names = {"add_lines": _shared(target, parts), "join": f"tidegate_join_{target.isa}_{parts}"}
    return share(text, names, target)["join"]


def declare(module: ir.Module, target: Target, parts: int) -> ir.Function:
    """Declare `void add_lines(i64 lines, void* own, i64* table, i64 block, i1 adds)`.

    It adds up to `AT_ONCE` lines to a block's sums, or, unless it `adds`, begins them with these. The positions of
    lines, as integers, begin the thread's `own` memory, lines of its own follow after `NOTED` numbers; the table is an
    array of `HEAD`, and then of every `TEAR` and every `PRODUCT`. Positions count lines of what stands elsewhere.
    The unit is ready, see `amx.Configured`.
    """
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _TAKES), _shared(target, parts))


def _shared(target: Target, parts: int) -> str:
    return f"tidegate_add_lines_{target.isa}_{parts}"


def _module(target: Target, parts: int) -> ir.Module:
    module = ir.Module(f"own lines of float in {parts}")
    module.triple = target.triple
    if parts:
        _define_add_lines(module, parts)
    else:
        _define_add_lines_by_vectors(module, target)
    _define_join(module)
    return module


def _define_add_lines_by_vectors(module: ir.Module, target: Target) -> None:
    function = define(module, "add_lines", _TAKES, pointers=(1, 2))
    function.linkage = "external"
    lines, own, table, block, adds = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", target.lanes("float"))
    b = lanes.builder
    head = _read(lanes, table, HEAD)
    sums = strided(lanes, b.inttoptr(head["sums"], POINTER), block, head["apart"])
    tears = b.gep(table, [INDEX(len(HEAD))], source_etype=INDEX)
    with steps(b, INDEX(0), head["tears"], 1) as each:
        at = _read(lanes, b.gep(tears, [b.mul(each.counter, INDEX(len(TEAR)))], source_etype=INDEX), TEAR)
        by_row = b.icmp_signed("!=", at["by_row"], INDEX(0))
        positions = b.select(by_row, after(lanes, own, INDEX(NOTED // 2)), own)
        base, place = b.inttoptr(at["address"], POINTER), after(lanes, own, b.add(head["torn"], at["place"]))
        with steps(b, INDEX(0), lines, 1) as line:
            position = b.load(b.gep(positions, [line.counter], source_etype=INDEX), align=8, typ=INDEX)
            source = strided(lanes, base, position, at["stride"])
            to = strided(lanes, place, line.counter, at["columns"])
            with steps(b, INDEX(0), b.add(at["columns"], INDEX(lanes.count - 1)), lanes.count) as vector:
                inside = lanes.first(b.sub(at["columns"], vector.counter))
                here, there = (after(lanes, each, vector.counter) for each in (source, to))
                lanes.masked_store(lanes.masked_load(here, inside), there, inside)
    with _products(lanes, table, head) as at:
        values = {
            "first": after(lanes, own, at["first"]), "first_stride": at["groups"],
            "second": after(lanes, own, at["second"]), "second_stride": at["panels"],
            "rows": at["rows"], "columns": at["columns"],
            "result": after(lanes, sums, at["sum"]), "result_stride": at["stride"],
        }  # fmt: skip
        Window(lanes, values, target).add(INDEX(0), lines, adds)
    b.ret_void()


def _define_add_lines(module: ir.Module, parts: int) -> None:
    product = amx.declare_tile_product(module, parts)
    turn, take = define_turning(module, parts), define_taking(module, parts)
    function = define(module, "add_lines", _TAKES, pointers=(1, 2))
    function.linkage = "external"
    lines, own, table, block, adds = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    b = lanes.builder
    head = _read(lanes, table, HEAD)
    torn = after(lanes, own, head["torn"])
    sums = strided(lanes, b.inttoptr(head["sums"], POINTER), block, head["apart"])
    tears = b.gep(table, [INDEX(len(HEAD))], source_etype=INDEX)
    deep = blocks(b, lines, DEEP)
    panel_stride = b.mul(deep, INDEX(2 * parts * TILE))
    with steps(b, INDEX(0), head["tears"], 1) as each:
        at = _read(lanes, b.gep(tears, [b.mul(each.counter, INDEX(len(TEAR)))], source_etype=INDEX), TEAR)
        is_own = b.icmp_signed("==", at["address"], INDEX(0))
        base = b.select(is_own, after(lanes, own, INDEX(NOTED)), b.inttoptr(at["address"], POINTER))
        noted = b.select(b.icmp_signed("!=", at["by_row"], INDEX(0)), after(lanes, own, INDEX(NOTED // 2)), own)
        positions = b.select(is_own, b.inttoptr(head["in_order"], POINTER), noted)
        place = after(lanes, torn, at["place"])
        what = [after(lanes, base, at["begin"]), positions, at["stride"], lines, at["columns"], place]
        with b.if_else(b.icmp_signed("!=", at["taken"], INDEX(0))) as (second, first):
            with second:
                b.call(take, [*what, panel_stride])
            with first:
                b.call(turn, [*what, INDEX(0)])
    with _products(lanes, table, head) as at:
        group = b.mul(at["groups"], b.mul(deep, INDEX(parts * TILE)))
        tiles = after(lanes, torn, b.add(at["first"], group))
        panels = strided(lanes, after(lanes, torn, at["second"]), at["panels"], panel_stride)
        right = [panels, panel_stride, at["across"]]
        b.call(
            product, [at["high"], lines, tiles, *right, after(lanes, sums, at["sum"]), at["stride"], INDEX(PANEL), adds]
        )
    b.ret_void()


def _define_join(module: ir.Module) -> None:
    function = define(module, "join", [POINTER], pointers=(0,))
    function.linkage = "external"
    table = function.args[0]
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    b = lanes.builder
    head = _read(lanes, table, HEAD)
    adds = b.icmp_signed("!=", head["adds"], INDEX(0))
    with _products(lanes, table, head) as at:
        begin, result = after(lanes, b.inttoptr(head["sums"], POINTER), at["sum"]), b.inttoptr(at["result"], POINTER)
        with (
            steps(b, INDEX(0), at["rows"], 1) as row,
            steps(b, INDEX(0), b.add(at["columns"], INDEX(LANES - 1)), LANES) as column,
        ):
            place = after(lanes, strided(lanes, result, row.counter, at["line"]), column.counter)
            left = b.sub(at["columns"], column.counter)
            there = lanes.masked_load(place, lanes.first(b.select(adds, left, INDEX(0))))
            first = after(lanes, strided(lanes, begin, row.counter, at["stride"]), column.counter)
            with steps(b, INDEX(0), head["blocks"], 1, [first, there]) as block:
                here, total = block.carried
                block.following = [after(lanes, here, head["apart"]), lanes.add(total, lanes.load(here))]
            lanes.masked_store(block.carried[1], place, lanes.first(left))
    b.ret_void()


@contextmanager
def _products(lanes: Lanes, table: ir.Value, head: dict[str, ir.Value]) -> Iterator[dict[str, ir.Value]]:
    """Loop over the products; yield what the table says of each."""
    b = lanes.builder
    begin = b.add(INDEX(len(HEAD)), b.mul(head["tears"], INDEX(len(TEAR))))
    with steps(b, INDEX(0), head["products"], 1) as each:
        place = b.add(begin, b.mul(each.counter, INDEX(len(PRODUCT))))
        yield _read(lanes, b.gep(table, [place], source_etype=INDEX), PRODUCT)


def _read(lanes: Lanes, record: ir.Value, fields: Sequence[str]) -> dict[str, ir.Value]:
    b = lanes.builder
    places = [b.gep(record, [INDEX(number)], source_etype=INDEX) for number, _ in enumerate(fields)]
    return {field: b.load(place, align=8, typ=INDEX) for field, place in zip(fields, places, strict=True)}


class OwnLines:
    """In a kernel, the lines of the thread that runs it: `room` for a step's rows, `note` where they stand, `end`.

    `thread` is the thread's number, known in the function's first block.
    """

    def __init__(self, lanes: Lanes, frame: Frame, thread: ir.Value, target: Target, parts: int) -> None:
        self._lanes = lanes
        self._frame = frame
        self._add = declare(lanes.builder.module, target, parts)
        entry = Lanes(frame.builder, "float", LANES)
        size = frame.index("row_stride", "own", 0)
        self._own = strided(entry, frame.pointer("buffer", "own", 0), thread, size)

    def room(self, count: ir.Value, begun: ir.Value, rows: ir.Value, item: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Add `count` lines up where so many rows more would not fit; return how many there are then, and `begun`.

        That is whether the block's sums have begun.
        """
        b = self._lanes.builder
        full = b.icmp_signed(">", b.add(count, rows), INDEX(AT_ONCE))
        with b.if_then(full):
            self.end(count, begun, item)
        return b.select(full, INDEX(0), count), b.or_(begun, full)

    def note(self, line: ir.Value, time: ir.Value, number: ir.Value) -> None:
        """Note where a row's line at a step stands elsewhere."""
        b, frame = self._lanes.builder, self._frame
        by_step = b.add(b.mul(time, frame.index("rows")), number)
        by_row = b.add(b.mul(number, frame.index("steps")), time)
        for place, position in ((line, by_step), (b.add(line, INDEX(AT_ONCE)), by_row)):
            b.store(position, b.gep(self._own, [place], source_etype=INDEX), align=8)

    def line(self, count: ir.Value, row: ir.Value, name: int | str) -> ir.Value:
        """Return where the line of a row begins in the thread's own memory."""
        lanes, stride = self._lanes, self._frame.index("row_stride", "outer", name)
        begin = after(lanes, self._own, INDEX(NOTED))
        return strided(lanes, begin, lanes.builder.add(count, row), stride)

    def end(self, count: ir.Value, begun: ir.Value, item: ir.Value) -> None:
        """Add `count` lines to the sums of a block."""
        table = self._frame.pointer("buffer", "table", 0)
        self._lanes.builder.call(self._add, [count, self._own, table, item, begun])
