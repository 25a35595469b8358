"""Products of the matrix unit against NumPy: as exact as float32's own, whatever the sizes, and row by row."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from llvmlite import ir

from tidegate.compile.llvm import amx, lines
from tidegate.compile.llvm.engine import compile_module, verify
from tidegate.compile.llvm.frame import Frame
from tidegate.compile.llvm.host import host, target
from tidegate.compile.llvm.lanes import INDEX, POINTER
from tidegate.compile.llvm.threads import function

ROUNDING = 2**-24
SLOTS = ("rows", "depth", "columns", "left", "lda", "tiles", "right", "row_stride", "column_stride", "panels",
         "panel_stride", "result", "ldc", "adds")  # fmt: skip


@pytest.fixture(scope="module")
def multiply() -> int:
    """`result (+)= left · right` by splitting, packing and multiplying: one function that the unit is configured in."""
    if host().isa != "amx":
        pytest.skip("this machine has no matrix unit, or Linux does not lend it")
    amx.compiled(host(), amx.EXACT)
    module = ir.Module("multiply")
    module.triple = host().triple
    split, pack, product = (
        amx.declare_split(module, amx.EXACT),
        amx.declare_tile_pack(module, amx.EXACT),
        amx.declare_tile_product(module, amx.EXACT),
    )
    made = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "multiply")
    frame = Frame(made, [(slot,) for slot in SLOTS])
    b = ir.IRBuilder(made.append_basic_block("start"))
    at, to = frame.index, frame.pointer
    unit = amx.Configured(b)
    b.call(split, [at("rows"), at("depth"), to("left"), at("lda"), to("tiles")])
    b.call(pack, [to("right"), at("row_stride"), at("column_stride"), at("depth"), at("columns"), to("panels"),
                  at("panel_stride")])  # fmt: skip
    count = b.udiv(b.add(at("columns"), INDEX(31)), INDEX(32))
    adds = b.icmp_signed("!=", at("adds"), INDEX(0))
    b.call(product, [at("rows"), at("depth"), to("tiles"), to("panels"), at("panel_stride"), count, to("result"),
                     at("ldc"), INDEX(32), adds])  # fmt: skip
    unit.end()
    b.ret_void()
    frame.begin(made.blocks[1])
    return compile_module(str(module), ["multiply"]).addresses["multiply"]


def space(count: int) -> np.ndarray:
    """Numbers from a line of memory on, NaN until they are written."""
    whole = np.full(count + 16, np.nan, np.float32)
    begin = -whole.ctypes.data % 64 // 4
    return whole[begin : begin + count]


def product(address: int, left: np.ndarray, right: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    rows, depth = left.shape
    columns = right.shape[1]
    high, wide, packed = -(-rows // 16) * 16, -(-columns // 32) * 32, amx.packed(depth, amx.EXACT)
    result, tiles = space(high * wide).reshape(high, wide), space(high * packed)
    panels = space(wide * packed + amx.slack(depth, amx.EXACT))
    if start is not None:
        result[:rows, :columns] = start
    strides = [s // 4 for s in right.strides]
    argument = (ctypes.c_int64 * len(SLOTS))(
        *(rows, depth, columns, left.ctypes.data, left.strides[0] // 4, tiles.ctypes.data, right.ctypes.data),
        *(*strides, panels.ctypes.data, 32 * packed, result.ctypes.data, wide, start is not None),
    )
    function(address)(ctypes.addressof(argument))
    return result[:rows, :columns].copy()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [(1, 1, 1), (16, 32, 32), (17, 33, 31), (5, 64, 96), (32, 100, 33), (47, 31, 65), (33, 200, 7), (64, 512, 40)],
)
def test_a_product_is_as_exact_as_floats_own(multiply: int, rows: int, depth: int, columns: int, turned: bool) -> None:
    random = np.random.default_rng(rows)
    left = random.standard_normal((rows, depth + 3)).astype(np.float32)[:, :depth]
    right = random.standard_normal((columns, depth) if turned else (depth, columns)).astype(np.float32)
    right = right.T if turned else right
    exact = left.astype(float) @ right.astype(float)
    size = np.abs(left).astype(float) @ np.abs(right).astype(float)
    # The sum of `depth` terms, each rounded once, and what the unit leaves out.
    bound = (depth + 4) * ROUNDING * size
    assert (np.abs(product(multiply, left, right) - exact) <= bound).all()
    start = random.standard_normal((rows, columns)).astype(np.float32)
    assert (np.abs(product(multiply, left, right, start) - (exact + start)) <= bound + ROUNDING * np.abs(start)).all()


def test_numbers_of_any_size_keep_their_precision(multiply: int) -> None:
    random = np.random.default_rng(3)
    left = (random.standard_normal((16, 32)) * 10.0 ** random.integers(-15, 15, (16, 1))).astype(np.float32)
    right = (random.standard_normal((32, 32)) * 10.0 ** random.integers(-15, 15, (1, 32))).astype(np.float32)
    exact = left.astype(float) @ right.astype(float)
    size = np.abs(left).astype(float) @ np.abs(right).astype(float)
    assert (np.abs(product(multiply, left, right) - exact) <= 40 * ROUNDING * size).all()
    # Eight bits each are multiplied without an error at all.
    whole = random.integers(-255, 256, (16, 32)).astype(np.float32)
    assert (product(multiply, whole, whole.T.copy()) == whole @ whole.T).all()


def test_a_row_has_the_same_bits_whatever_is_beside_it(multiply: int) -> None:
    random = np.random.default_rng(4)
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((47, 70), (70, 65)))
    whole = product(multiply, left, right)
    for begin, end in ((0, 1), (3, 20), (16, 47), (46, 47)):
        assert (product(multiply, left[begin:end], right) == whole[begin:end]).all()
    left[5] = np.nan
    again = product(multiply, left, right)
    assert np.isnan(again[5]).all()
    np.testing.assert_array_equal(np.delete(again, 5, 0), np.delete(whole, 5, 0))


def test_what_is_no_number_is_none_afterwards(multiply: int) -> None:
    left, right = np.ones((16, 32), np.float32), np.ones((32, 32), np.float32)
    left[1, 3], left[2, 31] = np.inf, np.nan
    # NaNs differ in bits that mean nothing.
    left.view(np.uint32)[3, 0] = 0x7FFFFFFF
    assert np.isnan(product(multiply, left, right)[1:4]).all()
    assert (product(multiply, left, right)[4:] == 32).all()


def test_the_functions_are_valid_and_need_the_unit() -> None:
    verify(str(amx._module(target("amx"), 3)), target("amx"))
    verify(str(lines._module(target("amx"), 3)), target("amx"))
