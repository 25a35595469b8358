"""Products of rows with packed panels on the matrix unit of x86 machines (AMX), as IR.

The unit multiplies tiles of bfloat16 numbers, 16 rows × 32 of one by 32 × 16 of the other, sixteen times as many a
second as vectors of float32. A float32 number is, exactly, the sum of three bfloat16 numbers: its first eight bits,
the next eight, the rest. Of the nine products of two such sums, the six largest are summed in float32; the others come
to 2⁻²⁴ of the product at most, which is float32's own rounding. Terms are added in one order, whatever else is
multiplied: a row's result has the same bits in every batch. In one part, `SHORT`, numbers are rounded to bfloat16.

The unit knows no numbers below 2⁻¹²⁶: factors below 10⁻³³ lose bits of their rest, little by little, and so do products
below 10⁻³². What is infinite, or above 3.38·10³⁸, comes out as NaN, since its rest is NaN; in one part as infinite.

Tiles lie one after the other, a row of 64 bytes of two numbers a lane: 32 columns k of a row as (k, k + 16), 32 rows k
of a matrix likewise, so that splitting needs no shuffle.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from tidegate.compile.llvm.engine import share
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes, intrinsic
from tidegate.compile.llvm.panels import define, define_pack
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import after, blocks, steps, strided

ROWS = 16
"""The rows of a tile."""

DEEP = 32
"""The columns of a tile of rows, and the rows of a tile of a matrix."""

PANEL = 32
"""The columns of a panel: two tiles side by side."""

EXACT, SHORT = 3, 1
"""In how many parts numbers are multiplied: as float32, or rounded to bfloat16."""

_ORDER = {EXACT: ((0, 2), (0, 1), (1, 1), (1, 0), (2, 0), (0, 0)), SHORT: ((0, 0),)}
"""Which parts of rows and of a matrix are multiplied: one after the other have one tile in common."""

TILE = ROWS * DEEP // 2  # a tile in memory, in numbers of float32
LANES = 16
BEHIND = 4 * TILE
_SPLIT = [INDEX, INDEX, POINTER, INDEX, POINTER]
_PACK = [POINTER, INDEX, INDEX, INDEX, INDEX, POINTER, INDEX]
_PRODUCT = [INDEX, INDEX, POINTER, POINTER, INDEX, INDEX, POINTER, INDEX, INDEX, ir.IntType(1)]
_BYTE = ir.IntType(8)


def packed(depth: int, parts: int) -> int:
    """Return how many float32 numbers the parts of `depth` numbers take, padded to whole tiles."""
    return -(-depth // DEEP) * DEEP * parts // 2


def slack(depth: int, parts: int) -> int:
    """Return how many float32 numbers behind a panel packing uses."""
    deep = -(-depth // DEEP)
    return BEHIND + deep * (_behind_each(parts) + (DEEP - packed(DEEP, parts)) * PANEL)


def _behind_each(parts: int) -> int:
    """Return how far into a panel's place its numbers are put before they are split, for every 32 rows.

    Tiles, which may be larger, are written from its beginning on, and never reach what is still to be read.
    """
    return max(0, parts - 2) * 2 * TILE


@cache
def compiled(target: Target, parts: int) -> dict[str, int]:
    """Return the addresses of the three functions, compiled for `target`, known to every module that declares them."""
    text = written(f"tiles of float in {parts}", lambda: str(_module(target, parts)))
    return share(text, {name: _shared(name, parts) for name in ("split", "tile_pack", "tile_product")}, target)


def _module(target: Target, parts: int) -> ir.Module:
    module = ir.Module(f"tiles of float in {parts}")
    module.triple = target.triple
    for function in (define_split(module, parts), define_tile_pack(module, parts), define_tile_product(module, parts)):
        function.linkage = "external"
    return module


def declare_split(module: ir.Module, parts: int) -> ir.Function:
    """Declare what `define_split` defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _SPLIT), _shared("split", parts))


def declare_tile_pack(module: ir.Module, parts: int) -> ir.Function:
    """Declare what `define_tile_pack` defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _PACK), _shared("tile_pack", parts))


def declare_tile_product(module: ir.Module, parts: int) -> ir.Function:
    """Declare what `define_tile_product` defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _PRODUCT), _shared("tile_product", parts))


def _shared(name: str, parts: int) -> str:
    return f"tidegate_{name}_{parts}"


def define_split(module: ir.Module, parts: int) -> ir.Function:
    """Define the splitting of rows into tiles of their parts.

    `void split(i64 rows, i64 K, float* A, i64 lda, void* tiles)`: for every 16 rows and every 32 columns a tile of each
    part, one after the other. Columns beyond K are zeros; rows beyond `rows` of
    the last tiles are not written.
    """
    function = define(module, "split", _SPLIT, pointers=(2, 4))
    rows, depth, source, lda, tiles = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    builder = lanes.builder
    line = builder.mul(blocks(builder, depth, DEEP), INDEX(parts * TILE))
    whole = builder.sub(depth, builder.urem(depth, INDEX(DEEP)))
    with steps(builder, INDEX(0), rows, 1) as row:
        begin = strided(lanes, source, row.counter, lda)
        above = strided(lanes, tiles, builder.udiv(row.counter, INDEX(ROWS)), line)
        target = strided(lanes, above, builder.urem(row.counter, INDEX(ROWS)), INDEX(LANES))
        with steps(builder, INDEX(0), whole, DEEP, [target]) as column:
            first = after(lanes, begin, column.counter)
            second = after(lanes, first, INDEX(LANES))
            store_parts(lanes, lanes.load(first), lanes.load(second), column.carried[0], TILE, parts)
            column.following = [after(lanes, column.carried[0], INDEX(parts * TILE))]
        left = builder.sub(depth, whole)
        with builder.if_then(builder.icmp_signed(">", left, INDEX(0))):
            first = after(lanes, begin, whole)
            low = lanes.masked_load(first, lanes.first(left))
            second = lanes.first(builder.sub(left, INDEX(LANES)))
            high = lanes.masked_load(after(lanes, first, INDEX(LANES)), second)
            store_parts(lanes, low, high, column.carried[0], TILE, parts)
    builder.ret_void()
    return function


def define_tile_pack(module: ir.Module, parts: int) -> ir.Function:
    """Define the packing of a K×N matrix into panels of tiles.

    `void tile_pack(float* source, i64 row_stride, i64 column_stride, i64 rows_k, i64 columns_n, void* panels,
    i64 panel_stride)`: a panel holds 32 columns, for every 32 rows two tiles of each part, one half and the
    other, one after the other. Rows beyond K and columns beyond N are zeros. Strides count numbers
    of float32; `panel_stride ≥ 32 · packed(K)`. `slack(K)` numbers behind the last panel are written too.
    """
    numbers = define_pack(module, "float", LANES)
    function = define(module, "tile_pack", _PACK, pointers=(0, 5))
    source, row_stride, column_stride, depth, columns, panels, panel_stride = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    builder = lanes.builder
    deep = blocks(builder, depth, DEEP)
    padded = builder.mul(deep, INDEX(DEEP))
    behind = builder.add(builder.mul(deep, INDEX(_behind_each(parts))), INDEX(BEHIND))
    count = blocks(builder, columns, PANEL)
    with steps(builder, INDEX(0), count, 1) as panel:
        target = strided(lanes, panels, panel.counter, panel_stride)
        staged, first = after(lanes, target, behind), builder.mul(panel.counter, INDEX(PANEL))
        left = builder.sub(columns, first)
        width = builder.select(builder.icmp_signed("<", left, INDEX(PANEL)), left, INDEX(PANEL))
        begin = strided(lanes, source, first, column_stride)
        builder.call(numbers, [begin, row_stride, column_stride, depth, width, staged, INDEX(0)])
        numbers_end, padded_end = (builder.mul(each, INDEX(PANEL)) for each in (depth, padded))
        with steps(builder, numbers_end, padded_end, LANES) as rest:
            lanes.store(lanes.const(0.0), after(lanes, staged, rest.counter))
        with steps(builder, INDEX(0), padded, DEEP, [staged, target]) as block:
            above, tiles = block.carried
            block.following = [
                after(lanes, above, INDEX(DEEP * PANEL)), after(lanes, tiles, INDEX(2 * parts * TILE)),
            ]  # fmt: skip
            with steps(builder, INDEX(0), INDEX(ROWS), 1) as row, steps(builder, INDEX(0), INDEX(2), 1) as half:
                number = strided(lanes, above, row.counter, INDEX(PANEL))
                low = strided(lanes, number, half.counter, INDEX(LANES))
                high = after(lanes, low, INDEX(DEEP // 2 * PANEL))
                tile = strided(lanes, tiles, half.counter, INDEX(TILE))
                place = strided(lanes, tile, row.counter, INDEX(LANES))
                store_parts(lanes, lanes.load(low), lanes.load(high), place, 2 * TILE, parts)
    builder.ret_void()
    return function


def store_parts(lanes: Lanes, low: ir.Value, high: ir.Value, place: ir.Value, apart: int, parts: int) -> None:
    """Write two vectors as pairs of bfloat16: the first parts to `place`, the others `apart` numbers behind."""
    for part in range(parts):
        # What is left after two parts has eight bits, which need no rounding.
        first, second = (_leading(lanes, x, rounded=part < 2, alone=parts < EXACT) for x in (low, high))
        pair = lanes.builder.or_(lanes.builder.lshr(first, lanes.bits(16)), second)
        lanes.store(lanes.from_bits(pair), after(lanes, place, INDEX(part * apart)))
        if part < parts - 1:
            low, high = lanes.sub(low, lanes.from_bits(first)), lanes.sub(high, lanes.from_bits(second))


def _leading(lanes: Lanes, x: ir.Value, *, rounded: bool, alone: bool) -> ir.Value:
    """Return the bits of x to eight significant ones, the others 0.

    Rounded, some NaNs overflow, or lose what makes them one. Of three parts the last one, which is not rounded, is NaN
    then, and so is each product's sum; where there is no such part, NaNs must be kept in those that stand `alone`.
    """
    bits = lanes.to_bits(x)
    if rounded:
        up = lanes.builder.add(bits, lanes.bits(1 << 15))
        quiet = lanes.builder.or_(bits, lanes.bits(1 << 22))
        bits = lanes.select(lanes.is_nan(x), quiet, up) if alone else up
    return lanes.builder.and_(bits, lanes.bits(0xFFFF0000))


def define_tile_product(module: ir.Module, parts: int) -> ir.Function:
    """Define the product of split rows with packed panels.

    `void tile_product(i64 rows, i64 K, void* tiles, void* panels, i64 panel_stride, i64 panel_count, float* C,
    i64 ldc, i64 panel_step_c, i1 accumulate)`, for row r, panel p and column j < 32:

        C[r*ldc + p*panel_step_c + j] (+)= Σ_k A[r, k] · B[k, 32p + j]

    C has rows for whole tiles, and those beyond `rows` come to hold anything. Without `accumulate` it is not read.
    The unit is ready, see `Configured`.
    """
    function = define(module, "tile_product", _PRODUCT, pointers=(2, 3, 6))
    function.attributes.add("noinline")
    rows, depth, a, b, panel_stride, panel_count, c, ldc, panel_step_c, accumulate = function.args
    lanes = Lanes(ir.IRBuilder(function.append_basic_block("entry")), "float", LANES)
    builder = lanes.builder
    deep, tall = blocks(builder, depth, DEEP), blocks(builder, rows, ROWS)
    line, down = builder.mul(deep, INDEX(parts * TILE)), builder.mul(ldc, INDEX(ROWS))
    unit = _Unit(builder)
    with steps(builder, INDEX(0), panel_count, 1) as across:
        panel = strided(lanes, b, across.counter, panel_stride)
        column = strided(lanes, c, across.counter, panel_step_c)
        block: ir.Value = INDEX(0)
        for height in (2, 1):
            with steps(builder, block, tall, height) as over:
                above, corner = strided(lanes, a, over.counter, line), strided(lanes, column, over.counter, down)
                tile = _Sums(lanes, unit, height, line, corner, ldc, parts)
                tile.begin(accumulate)
                with steps(builder, INDEX(0), deep, 1, [above, panel]) as k:
                    tile.add(*k.carried)
                    beside = after(lanes, k.carried[0], INDEX(parts * TILE))
                    k.following = [beside, after(lanes, k.carried[1], INDEX(2 * parts * TILE))]
                tile.end()
            block = over.counter
    builder.ret_void()
    return function


class _Unit:
    """The unit's instructions on its eight tiles, by number."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self._builder = builder

    def zero(self, tile: int) -> None:
        self._call("tilezero", _BYTE(tile))

    def load(self, tile: int, pointer: ir.Value, stride: ir.Value) -> None:
        """Load a tile whose rows are `stride` bytes apart."""
        self._call("tileloadd64", _BYTE(tile), pointer, stride)

    def store(self, tile: int, pointer: ir.Value, stride: ir.Value) -> None:
        self._call("tilestored64", _BYTE(tile), pointer, stride)

    def multiply(self, total: int, left: int, right: int) -> None:
        """Add the product of two tiles to a third."""
        self._call("tdpbf16ps", _BYTE(total), _BYTE(left), _BYTE(right))

    def _call(self, name: str, *arguments: ir.Value) -> None:
        instruction(self._builder, name, *arguments)


def instruction(builder: ir.IRBuilder, name: str, *arguments: ir.Value) -> None:
    """Call an instruction that x86 alone has."""
    types = [argument.type for argument in arguments]
    builder.call(intrinsic(builder.module, f"llvm.x86.{name}", ir.VoidType(), types), arguments)


class _Sums:
    """One or two tiles of rows times a panel: two or four tiles of sums, in the unit until they are complete."""

    def __init__(
        self, lanes: Lanes, unit: _Unit, height: int, line: ir.Value, corner: ir.Value, ldc: ir.Value, parts: int
    ) -> None:
        self._parts = parts
        self._lanes = lanes
        self._unit = unit
        self._line = line
        self._stride = lanes.builder.mul(ldc, INDEX(lanes.bytes))
        lower = strided(lanes, corner, INDEX(ROWS), ldc)
        tops = (corner, lower)[:height]
        self._places = [after(lanes, top, INDEX(half * LANES)) for top in tops for half in range(2)]
        self._sums = range(8 - len(self._places), 8)
        self._height = height

    def begin(self, accumulate: ir.Value) -> None:
        with self._lanes.builder.if_else(accumulate) as (held, new):
            with held:
                for tile, place in zip(self._sums, self._places, strict=True):
                    self._unit.load(tile, place, self._stride)
            with new:
                for tile in self._sums:
                    self._unit.zero(tile)

    def add(self, above: ir.Value, panel: ir.Value) -> None:
        """Add what 32 columns of the rows contribute, in the same order for both heights."""
        rows = [above, after(self._lanes, above, self._line)][: self._height]
        held: tuple[int, int] = (-1, -1)
        for left, right in _ORDER[self._parts]:
            if right != held[1]:
                for half in range(2):
                    self._read(2 + half, after(self._lanes, panel, INDEX((2 * right + half) * TILE)))
            if left != held[0]:
                for number, row in enumerate(rows):
                    self._read(number, after(self._lanes, row, INDEX(left * TILE)))
            for number, total in enumerate(self._sums):
                self._unit.multiply(total, number // 2, 2 + number % 2)
            held = left, right

    def end(self) -> None:
        for tile, place in zip(self._sums, self._places, strict=True):
            self._unit.store(tile, place, self._stride)

    def _read(self, tile: int, place: ir.Value) -> None:
        self._unit.load(tile, place, INDEX(DEEP * 2))


class Configured:
    """The unit made ready for tiles of 16 rows of 64 bytes; `end` leaves it as it was found."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        before, own = (self._memory(builder) for _ in range(2))
        instruction(builder, "sttilecfg", before)
        for number, value in enumerate(_configuration()):
            builder.store(INDEX(value), builder.gep(own, [INDEX(number)], source_etype=INDEX), align=8)
        instruction(builder, "ldtilecfg", own)
        self._builder, self._before = builder, before

    def end(self) -> None:
        """Give the unit back; its sums are lost."""
        instruction(self._builder, "ldtilecfg", self._before)

    def _memory(self, builder: ir.IRBuilder) -> ir.Value:
        return builder.bitcast(builder.alloca(INDEX, 8), POINTER)


def _configuration() -> list[int]:
    """Return the 64 bytes as integers: palette 1; from byte 16 on bytes a row, from byte 48 on rows, of eight tiles."""
    configuration = bytearray(64)
    configuration[0] = 1
    for tile in range(8):
        configuration[16 + 2 * tile], configuration[48 + tile] = 2 * DEEP, ROWS
    return [int.from_bytes(configuration[at : at + 8], "little") for at in range(0, 64, 8)]
