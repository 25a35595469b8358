"""The product of a few rows with a matrix as it stands in memory, as IR: for so few, packing would cost more."""

from __future__ import annotations

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.panels import define, transposed
from tidegate.compile.llvm.tile import Loop, after, every, steps, strided

_ARGUMENTS = [INDEX, INDEX, POINTER, INDEX, POINTER, INDEX, INDEX, POINTER, INDEX, ir.IntType(1)]
VECTORS = 4


def define_direct(module: ir.Module, real: str, lanes: int, turned: bool) -> ir.Function:
    """Define the product of rows with a K×N matrix.

    `void direct(i64 rows, i64 K, real* A, i64 lda, real* W, i64 ldw, i64 N, real* C, i64 ldc, i1 accumulate)`, for
    row r and column n:

        C[r*ldc + n] (+)= Σ_k A[r*lda + k] · W[k*ldw + n]        or W[n*ldw + k] where it is `turned`

    Steps count numbers. Without `accumulate` C is never read. C has room for whole vectors beyond N, A and W have not.
    A row's result has the same bits whatever `rows` is.
    """
    function = define(module, f"direct_{real}{'_turned' * turned}", _ARGUMENTS, pointers=(2, 4, 7))
    function.attributes.add("noinline")
    rows, depth, a, lda, w, ldw, columns, c, ldc, accumulate = function.args
    vector = Lanes(ir.IRBuilder(function.append_basic_block("entry")), real, lanes)
    builder = vector.builder
    body = _dots if turned else _sums
    with steps(builder, INDEX(0), rows, 1) as row:
        left, result = strided(vector, a, row.counter, lda), strided(vector, c, row.counter, ldc)
        body(vector, left, w, ldw, depth, columns, result, accumulate)
    builder.ret_void()
    return function


def _dots(
    vector: Lanes, left: ir.Value, w: ir.Value, ldw: ir.Value, depth: ir.Value, columns: ir.Value, result: ir.Value,
    accumulate: ir.Value,
) -> None:  # fmt: skip
    """Columns that run along memory: `lanes` of them at once, each summed in the lanes of one vector."""
    builder, lanes = vector.builder, vector.count
    with steps(builder, INDEX(0), builder.add(columns, INDEX(lanes - 1)), lanes) as block:
        last = builder.sub(columns, INDEX(1))
        lines = []
        for column in range(lanes):
            wanted = builder.add(block.counter, INDEX(column))
            known = builder.select(builder.icmp_signed("<", wanted, columns), wanted, last)
            lines.append(strided(vector, w, known, ldw))
        with steps(builder, INDEX(0), depth, lanes, [vector.const(0.0)] * lanes) as whole:
            factor = vector.load(after(vector, left, whole.counter))
            whole.following = [
                vector.fma(factor, vector.load(after(vector, line, whole.counter)), total)
                for line, total in zip(lines, whole.carried, strict=True)
            ]
        sums = _with_rest(vector, left, lines, depth, whole)
        _put(vector, _sum(vector, transposed(vector, sums)), after(vector, result, block.counter), accumulate)


def _with_rest(
    vector: Lanes, left: ir.Value, lines: list[ir.Value], depth: ir.Value, whole: Loop
) -> list[ir.Value]:  # fmt: skip
    """Add what is left of k, less than a vector, to what whole vectors came to; nothing may be left."""
    builder = vector.builder
    before = builder.block
    with builder.if_then(builder.icmp_signed("<", whole.counter, depth)):
        mask = vector.first(builder.sub(depth, whole.counter))
        factor = vector.masked_load(after(vector, left, whole.counter), mask)
        added = [
            vector.fma(factor, vector.masked_load(after(vector, line, whole.counter), mask), total)
            for line, total in zip(lines, whole.carried, strict=True)
        ]
        adding = builder.block
    joined = [builder.phi(vector.type) for _ in lines]
    for phi, total, more in zip(joined, whole.carried, added, strict=True):
        phi.add_incoming(total, before)
        phi.add_incoming(more, adding)
    return joined


def _sums(
    vector: Lanes, left: ir.Value, w: ir.Value, ldw: ir.Value, depth: ir.Value, columns: ir.Value, result: ir.Value,
    accumulate: ir.Value,
) -> None:  # fmt: skip
    """Columns side by side in memory: a few vectors of them at once, then the last ones vector by vector."""
    builder, lanes = vector.builder, vector.count
    with steps(builder, INDEX(0), columns, VECTORS * lanes) as block:
        _side_by_side(vector, left, after(vector, w, block.counter), ldw, depth,
                      after(vector, result, block.counter), accumulate, VECTORS, None)  # fmt: skip
    with steps(builder, block.counter, builder.add(columns, INDEX(lanes - 1)), lanes) as rest:
        mask = vector.first(builder.sub(columns, rest.counter))
        _side_by_side(vector, left, after(vector, w, rest.counter), ldw, depth,
                      after(vector, result, rest.counter), accumulate, 1, mask)  # fmt: skip


def _side_by_side(
    vector: Lanes, left: ir.Value, corner: ir.Value, ldw: ir.Value, depth: ir.Value, result: ir.Value,
    accumulate: ir.Value, count: int, mask: ir.Value | None,
) -> None:  # fmt: skip
    with steps(vector.builder, INDEX(0), depth, 1, [vector.const(0.0)] * count) as turn:
        number = vector.builder.load(after(vector, left, turn.counter), align=vector.bytes, typ=vector.scalar_type)
        factor = vector.splat(number)
        places = every(vector, strided(vector, corner, turn.counter, ldw), INDEX(vector.count), count)
        turn.following = [
            vector.fma(factor, vector.load(place) if mask is None else vector.masked_load(place, mask), total)
            for place, total in zip(places, turn.carried, strict=True)
        ]
    for total, place in zip(turn.carried, every(vector, result, INDEX(vector.count), count), strict=True):
        _put(vector, total, place, accumulate)


def _sum(vector: Lanes, values: list[ir.Value]) -> ir.Value:
    while len(values) > 1:
        values = [vector.add(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _put(vector: Lanes, value: ir.Value, place: ir.Value, accumulate: ir.Value) -> None:
    builder = vector.builder
    before = builder.block
    with builder.if_then(accumulate):
        total = vector.add(vector.load(place), value)
        adding = builder.block
    joined = builder.phi(vector.type)
    joined.add_incoming(value, before)
    joined.add_incoming(total, adding)
    vector.store(joined, place)
