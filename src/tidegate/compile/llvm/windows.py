"""Sums over lines, Pᵀ Q, with vectors, as IR: matrices' gradients, a window each, by one call for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from llvmlite import ir

from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.frame import Frame, taking
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.subnormal import Flushed
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import after, blocks, every, steps, strided

ENTRY = "sum_windows"

SLOTS = ("taken", "windows", "table")
"""What stands in the argument of `sum_windows`, in order."""

NEAR = 64
"""So many lines are added at a time."""

FIELDS = (
    "first", "first_stride", "second", "second_stride", "lines", "rows", "columns", "result", "result_stride",
)  # fmt: skip
"""What stands in the table for each window, in order."""


@cache
def compiled(target: Target, real: str) -> int:
    """Return the address of `void sum_windows(argument)`, to be called by every thread with what `SLOTS` names.

    `table` holds the numbers of `FIELDS` for each of so many `windows`: for row r and column j of a result

        result[r*result_stride + j] = Σ_k first[k*first_stride + r] · second[k*second_stride + j]

    Strides count numbers; nothing overlaps. Lines are added in their order, each by one fma, from 0: a window has the
    same bits however a matrix is cut into windows. `taken` is a counter, which begins at 0.
    """
    text = written(f"windows of {real} for {target.isa}", lambda: str(_module(target, real)))
    return compile_module(text, (ENTRY,), target).addresses[ENTRY]


def _module(target: Target, real: str) -> ir.Module:
    module = ir.Module(f"windows of {real}")
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), ENTRY)
    frame = Frame(function, [(slot,) for slot in SLOTS])
    b = ir.IRBuilder(function.append_basic_block("start"))
    lanes, flushed = Lanes(b, real, target.lanes(real)), Flushed(b)
    with taking(b, frame, frame.index("windows")) as item:
        record = b.gep(frame.pointer("table"), [b.mul(item, INDEX(len(FIELDS)))], source_etype=INDEX)
        Window(lanes, _read(b, record), target).sum()
    flushed.end()
    b.ret_void()
    frame.begin(function.blocks[1])
    return module


def _read(b: ir.IRBuilder, record: ir.Value) -> dict[str, ir.Value]:
    places = [b.gep(record, [INDEX(number)], source_etype=INDEX) for number, _ in enumerate(FIELDS)]
    kinds = [POINTER if field in ("first", "second", "result") else INDEX for field in FIELDS]
    return {f: b.load(place, align=8, typ=kind) for f, place, kind in zip(FIELDS, places, kinds, strict=True)}


class Window:
    """One window of a result, some rows times two vectors in registers over the lines that fit the first cache.

    Where only one vector is left of the columns, twice as many rows times that one.

    `at` has the values of `FIELDS`.
    """

    def __init__(self, lanes: Lanes, at: Mapping[str, ir.Value], target: Target) -> None:
        self._lanes = lanes
        self._at = at
        self._tallest = 12 if target.registers >= 32 else 6

    def sum(self) -> None:
        """Make the result of all lines."""
        b, at = self._lanes.builder, self._at
        # Of no lines the result is 0, and has to be written.
        some = b.select(b.icmp_signed(">", at["lines"], INDEX(0)), at["lines"], INDEX(1))
        with steps(b, INDEX(0), blocks(b, some, NEAR), 1) as near:
            begin = b.mul(near.counter, INDEX(NEAR))
            left = b.sub(at["lines"], begin)
            count = b.select(b.icmp_signed("<", left, INDEX(NEAR)), left, INDEX(NEAR))
            self.add(begin, count, b.icmp_signed(">", begin, INDEX(0)))

    def add(self, begin: ir.Value, count: ir.Value, begun: ir.Value) -> None:
        """Add so many lines to the result, or begin it with them where it has not `begun`."""
        b, lanes, at = self._lanes.builder, self._lanes, self._at
        self._count, self._begun = count, begun
        self._from = [strided(lanes, at[name], begin, at[f"{name}_stride"]) for name in ("first", "second")]
        with steps(b, INDEX(0), at["columns"], 2 * lanes.count) as across:
            self._panel(across.counter, [None, None])
        left, one = b.sub(at["columns"], across.counter), INDEX(lanes.count)
        with b.if_then(b.icmp_signed(">", left, one)):
            self._panel(across.counter, [None, lanes.first(b.sub(left, one))])
        alone = b.and_(b.icmp_signed(">", left, INDEX(0)), b.icmp_signed("<=", left, one))
        with b.if_then(alone):
            self._panel(across.counter, [lanes.first(left)])

    def _panel(self, column: ir.Value, masks: list[ir.Value | None]) -> None:
        """Add to a vector of every row for each of the masks; where there is one, to those numbers that there are."""
        b, at, tallest = self._lanes.builder, self._at, self._tallest * 2 // len(masks)
        rest = b.urem(at["rows"], INDEX(tallest))
        with steps(b, INDEX(0), b.sub(at["rows"], rest), tallest) as down:
            self._tile(tallest, down.counter, column, masks)
        row = down.counter
        for height in (height for height in (16, 8, 4, 2, 1) if height < tallest):
            here = b.and_(rest, INDEX(height))
            with b.if_then(b.icmp_signed("!=", here, INDEX(0))):
                self._tile(height, row, column, masks)
            row = b.add(row, here)

    def _tile(self, height: int, row: ir.Value, column: ir.Value, masks: list[ir.Value | None]) -> None:
        lanes, at, wide = self._lanes, self._at, len(masks)
        first, second = (after(lanes, begin, place) for begin, place in zip(self._from, (row, column), strict=True))
        lines = [after(lanes, self._row(row, number), column) for number in range(height)]
        places = [place for line in lines for place in self._vectors(line, wide)]
        sums = [self._sum(place, mask) for place, mask in zip(places, masks * height, strict=True)]
        with steps(lanes.builder, INDEX(0), self._count, 1, [first, second, *sums]) as line:
            above, beside, *sums = line.carried
            line.following = [after(lanes, above, at["first_stride"]), after(lanes, beside, at["second_stride"])]
            factors = [self._load(*each) for each in zip(self._vectors(beside, wide), masks, strict=True)]
            for number in range(height):
                place = after(lanes, above, INDEX(number))
                one = lanes.splat(lanes.builder.load(place, align=lanes.bytes, typ=lanes.scalar_type))
                held = sums[wide * number : wide * (number + 1)]
                line.following += [lanes.fma(one, factor, value) for factor, value in zip(factors, held, strict=True)]
        for value, place, mask in zip(line.carried[2:], places, masks * height, strict=True):
            self._store(value, place, mask)

    def _row(self, row: ir.Value, number: int) -> ir.Value:
        b, at = self._lanes.builder, self._at
        return strided(self._lanes, at["result"], b.add(row, INDEX(number)), at["result_stride"])

    def _load(self, place: ir.Value, mask: ir.Value | None) -> ir.Value:
        return self._lanes.load(place) if mask is None else self._lanes.masked_load(place, mask)

    def _store(self, value: ir.Value, place: ir.Value, mask: ir.Value | None) -> None:
        if mask is None:
            self._lanes.store(value, place)
        else:
            self._lanes.masked_store(value, place, mask)

    def _sum(self, place: ir.Value, mask: ir.Value | None) -> ir.Value:
        """Return what has been summed so far: of the first lines nothing, whatever the result's memory holds."""
        lanes = self._lanes
        return lanes.builder.select(self._begun, self._load(place, mask), lanes.const(0.0))

    def _vectors(self, place: ir.Value, count: int) -> list[ir.Value]:
        return every(self._lanes, place, INDEX(self._lanes.count), count)
