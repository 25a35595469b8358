"""Weights packed into panels, and the product of rows with packed panels, as IR.

A panel holds NR = 2 · lanes columns of a K×N matrix, k-major: column j of row k stands at `k*NR + j`, so that the
product reads it from front to back. Columns beyond N are zeros.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from tidegate.compile.llvm.engine import share
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import Product, after, blocks, every, halves, steps, strided

_PACK = [POINTER, INDEX, INDEX, INDEX, INDEX, POINTER, INDEX]
_PRODUCT = [INDEX, INDEX, POINTER, INDEX, POINTER, INDEX, INDEX, POINTER, INDEX, INDEX, ir.IntType(1)]


@cache
def compiled(target: Target, real: str) -> dict[str, int]:
    """Return the addresses of both functions, compiled for `target` and known to every module that declares them."""
    names = [f"pack_{real}", f"product_{real}"]
    text = written(f"panels of {real} for {target.isa}", lambda: str(_module(target, real)))
    return share(text, {name: _shared(name, target) for name in names}, target)


def _module(target: Target, real: str) -> ir.Module:
    module = ir.Module(f"panels of {real}")
    module.triple = target.triple
    lanes = target.lanes(real)
    for function in (define_pack(module, real, lanes), define_product(module, real, lanes, target.registers)):
        function.linkage = "external"
    return module


def declare_pack(module: ir.Module, real: str, target: Target) -> ir.Function:
    """Declare what `define_pack` defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _PACK), _shared(f"pack_{real}", target))


def declare_product(module: ir.Module, real: str, target: Target) -> ir.Function:
    """Declare what `define_product` defines."""
    return ir.Function(module, ir.FunctionType(ir.VoidType(), _PRODUCT), _shared(f"product_{real}", target))


def _shared(name: str, target: Target) -> str:
    """Return the name that other modules know a function by: panels are of another width on every kind of machine."""
    return f"tidegate_{name}_{target.isa}"


def define_pack(module: ir.Module, real: str, lanes: int) -> ir.Function:
    """Define the packing of a K×N matrix into panels.

    `void pack(real* source, i64 row_stride, i64 column_stride, i64 rows_k, i64 columns_n, real* panels,
    i64 panel_stride)`, for panel p, row k < K and column j < NR:

        panels[p*panel_stride + k*NR + j] = source[k*row_stride + (p*NR + j)*column_stride], or 0 beyond column N

    Strides count numbers; `panel_stride ≥ K*NR` leaves room for the panels of other matrices in between. Source and
    panels do not overlap. Whole panels of a source with a stride of 1 either way go a vector at a time.
    """
    function = define(module, f"pack_{real}", _PACK, pointers=(0, 5))
    source, row_stride, column_stride, depth, columns, panels, panel_stride = function.args
    vector = Lanes(ir.IRBuilder(function.append_basic_block("entry")), real, lanes)
    builder, width = vector.builder, INDEX(2 * lanes)
    copied = builder.select(builder.icmp_signed("==", column_stride, INDEX(1)), depth, INDEX(0))
    turned = builder.select(builder.icmp_signed("==", row_stride, INDEX(1)), depth, copied)
    with steps(builder, INDEX(0), columns, 2 * lanes, [source, panels]) as panel:
        corner, target = panel.carried
        panel.following = [
            strided(vector, corner, column_stride, width),
            after(vector, target, panel_stride),
        ]
        with steps(builder, INDEX(0), copied, 1) as row:
            _copy_row(vector, corner, row_stride, target, row.counter)
        with steps(builder, row.counter, turned, lanes) as block, steps(builder, INDEX(0), width, lanes) as half:
            begin = after(vector, strided(vector, corner, half.counter, column_stride), block.counter)
            place = after(vector, strided(vector, target, block.counter, width), half.counter)
            _turn_square(vector, begin, column_stride, place)
        with steps(builder, block.counter, depth, 1) as rest:
            begin = strided(vector, corner, rest.counter, row_stride)
            _gather_row(vector, begin, column_stride, width, target, rest.counter)
    corner, target = panel.carried
    left = builder.sub(columns, panel.counter)
    with builder.if_then(builder.icmp_signed(">", left, INDEX(0))), steps(builder, INDEX(0), depth, 1) as row:
        begin = strided(vector, corner, row.counter, row_stride)
        _gather_row(vector, begin, column_stride, left, target, row.counter)
    builder.ret_void()
    return function


def define_product(module: ir.Module, real: str, lanes: int, registers: int) -> ir.Function:
    """Define the product of rows with packed panels.

    `void product(i64 rows, i64 K, real* A, i64 lda, real* panels, i64 panel_stride, i64 vectors,
    real* C, i64 ldc, i64 panel_step_c, i1 accumulate)`, for row r, panel p and column j < NR:

        C[r*ldc + p*panel_step_c + j] (+)= Σ_k A[r*lda + k] · panels[p*panel_stride + k*NR + j]

    Panels are of two `vectors`; the last, where their number is odd, is of its first alone. Steps and strides count
    numbers. Without `accumulate` C is never read. A, panels and C do not overlap.
    k increases, each term is added by one fma, and the sum starts from 0 or from C; in a vector alone the terms of even
    k and of odd k are summed apart, and these two sums then added. A row's result has the same bits whatever `rows`
    and `registers` are, and a whole panel's whatever `vectors` is. `registers` is how many vectors the machine holds.
    """
    function = define(module, f"product_{real}", _PRODUCT, pointers=(2, 4, 7))
    function.attributes.add("noinline")
    rows, depth, a, lda, b, panel_stride, vectors, c, ldc, panel_step_c, accumulate = function.args
    vector = Lanes(ir.IRBuilder(function.append_basic_block("entry")), real, lanes)
    product = Product(vector, a, lda, b, panel_stride, c, ldc, panel_step_c, depth, accumulate)
    builder, tallest = vector.builder, 12 if registers >= 32 else 6
    panel_count, alone = builder.lshr(vectors, INDEX(1)), builder.trunc(vectors, ir.IntType(1))
    rest = builder.urem(rows, INDEX(tallest))
    row = builder.sub(rows, rest)
    with steps(builder, INDEX(0), panel_count, 1) as across, steps(builder, INDEX(0), row, tallest) as down:
        product.tile(tallest, 1, down.counter, across.counter)
    with builder.if_then(alone), steps(builder, INDEX(0), row, tallest) as down:
        product.half_tile(tallest, down.counter, panel_count)
    for height in (height for height in (8, 4, 2, 1) if height < tallest):
        here = builder.and_(rest, INDEX(height))
        with builder.if_then(builder.icmp_signed("!=", here, INDEX(0))):
            panel: ir.Value = INDEX(0)
            for width in (width for width in (4, 2, 1) if width * height <= tallest):
                with steps(builder, panel, panel_count, width) as across:
                    product.tile(height, width, row, across.counter)
                panel = across.counter
            with builder.if_then(alone):
                product.half_tile(height, row, panel_count)
        row = builder.add(row, here)
    builder.ret_void()
    return function


def counted(lanes: Lanes, columns: ir.Value, split: ir.Function | None) -> ir.Value:
    """Return so many columns in what products count: vectors, or, where rows are `split` for a matrix unit, panels."""
    return blocks(lanes.builder, columns, 2 * lanes.count if split else lanes.count)


def define(module: ir.Module, name: str, arguments: list[ir.Type], pointers: tuple[int, ...]) -> ir.Function:
    """Begin a function that only its module knows, whose `pointers` do not overlap."""
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    for pointer in pointers:
        function.args[pointer].add_attribute("noalias")
    return function


def _copy_row(vector: Lanes, corner: ir.Value, row_stride: ir.Value, target: ir.Value, k: ir.Value) -> None:
    source = strided(vector, corner, k, row_stride)
    place = strided(vector, target, k, INDEX(2 * vector.count))
    for reading, writing in zip(halves(vector, source), halves(vector, place), strict=True):
        vector.store(vector.load(reading), writing)


def _turn_square(vector: Lanes, begin: ir.Value, column_stride: ir.Value, place: ir.Value) -> None:
    """Write `lanes` numbers of each of `lanes` columns, which stand one after the other in memory, as rows."""
    lanes = vector.count
    rows = transposed(vector, [vector.load(column) for column in every(vector, begin, column_stride, lanes)])
    for row, target in zip(rows, every(vector, place, INDEX(2 * lanes), lanes), strict=True):
        vector.store(row, target)


def transposed(vector: Lanes, rows: list[ir.Value]) -> list[ir.Value]:
    """Return a square of `lanes` vectors transposed by swapping blocks of half the size, a quarter, … one number."""
    lanes = range(vector.count)
    size = len(lanes) // 2
    while size:
        low = [len(lanes) + lane - size if lane & size else lane for lane in lanes]
        high = [len(lanes) + lane if lane & size else lane + size for lane in lanes]
        for first in (lane for lane in lanes if not lane & size):
            pair = rows[first], rows[first + size]
            for place, order in ((first, low), (first + size, high)):
                mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), order)
                rows[place] = vector.builder.shuffle_vector(*pair, mask)
        size //= 2
    return rows


def _gather_row(
    vector: Lanes, begin: ir.Value, step: ir.Value, filled: ir.Value, target: ir.Value, k: ir.Value
) -> None:
    """Write row k of a panel number by number: `filled` numbers, at least one, then zeros."""
    builder, width = vector.builder, INDEX(2 * vector.count)
    place = strided(vector, target, k, width)
    with steps(builder, INDEX(0), width, 1) as column:
        inside = builder.icmp_signed("<", column.counter, filled)
        known = builder.select(inside, column.counter, INDEX(0))
        reading = strided(vector, begin, known, step)
        number = builder.load(reading, align=vector.bytes, typ=vector.scalar_type)
        number = builder.select(inside, number, ir.Constant(vector.scalar_type, 0.0))
        builder.store(number, after(vector, place, column.counter), align=vector.bytes)
