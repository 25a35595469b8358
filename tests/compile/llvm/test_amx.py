"""Products of the matrix unit against NumPy: as exact as float32's own, whatever the sizes, and row by row."""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np
import pytest
import torch
from llvmlite import ir

from tidegate.compile.llvm import amx, lines, own_lines, windows
from tidegate.compile.llvm.engine import compile_module, verify
from tidegate.compile.llvm.frame import Frame
from tidegate.compile.llvm.host import host, target
from tidegate.compile.llvm.lanes import INDEX, POINTER
from tidegate.compile.llvm.threads import function

ROUNDING = 2**-24
SLOTS = ("rows", "depth", "columns", "left", "lda", "tiles", "right", "row_stride", "column_stride", "panels",
         "panel_stride", "result", "ldc", "adds")  # fmt: skip


@cache
def multiplying(parts: int) -> int:
    """`result (+)= left · right` by splitting, packing and multiplying: one function that the unit is configured in."""
    if host().isa != "amx":
        pytest.skip("this machine has no matrix unit, or Linux does not lend it")
    amx.compiled(host(), parts)
    module = ir.Module(f"multiply in {parts}")
    module.triple = host().triple
    split, pack, product = (
        declare(module, parts) for declare in (amx.declare_split, amx.declare_tile_pack, amx.declare_tile_product)
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


def product(left: np.ndarray, right: np.ndarray, start: np.ndarray | None = None, parts: int = amx.EXACT) -> np.ndarray:
    address = multiplying(parts)
    rows, depth = left.shape
    columns = right.shape[1]
    high, wide, packed = -(-rows // 16) * 16, -(-columns // 32) * 32, amx.packed(depth, parts)
    result, tiles = space(high * wide).reshape(high, wide), space(high * packed)
    panels = space(wide * packed + amx.slack(depth, parts))
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
def test_a_product_is_as_exact_as_floats_own(rows: int, depth: int, columns: int, turned: bool) -> None:
    random = np.random.default_rng(rows)
    left = random.standard_normal((rows, depth + 3)).astype(np.float32)[:, :depth]
    right = random.standard_normal((columns, depth) if turned else (depth, columns)).astype(np.float32)
    right = right.T if turned else right
    exact = left.astype(float) @ right.astype(float)
    size = np.abs(left).astype(float) @ np.abs(right).astype(float)
    # The sum of `depth` terms, each rounded once, and what the unit leaves out.
    bound = (depth + 4) * ROUNDING * size
    assert (np.abs(product(left, right) - exact) <= bound).all()
    start = random.standard_normal((rows, columns)).astype(np.float32)
    assert (np.abs(product(left, right, start) - (exact + start)) <= bound + ROUNDING * np.abs(start)).all()


def test_numbers_of_any_size_keep_their_precision() -> None:
    random = np.random.default_rng(3)
    left = (random.standard_normal((16, 32)) * 10.0 ** random.integers(-15, 15, (16, 1))).astype(np.float32)
    right = (random.standard_normal((32, 32)) * 10.0 ** random.integers(-15, 15, (1, 32))).astype(np.float32)
    exact = left.astype(float) @ right.astype(float)
    size = np.abs(left).astype(float) @ np.abs(right).astype(float)
    assert (np.abs(product(left, right) - exact) <= 40 * ROUNDING * size).all()
    # Eight bits each are multiplied without an error at all.
    whole = random.integers(-255, 256, (16, 32)).astype(np.float32)
    assert (product(whole, whole.T.copy()) == whole @ whole.T).all()


def test_a_row_has_the_same_bits_whatever_is_beside_it() -> None:
    random = np.random.default_rng(4)
    left, right = (random.standard_normal(shape).astype(np.float32) for shape in ((47, 70), (70, 65)))
    whole = product(left, right)
    for begin, end in ((0, 1), (3, 20), (16, 47), (46, 47)):
        assert (product(left[begin:end], right) == whole[begin:end]).all()
    left[5] = np.nan
    again = product(left, right)
    assert np.isnan(again[5]).all()
    np.testing.assert_array_equal(np.delete(again, 5, 0), np.delete(whole, 5, 0))


def test_what_is_no_number_is_none_afterwards() -> None:
    left, right = np.ones((16, 32), np.float32), np.ones((32, 32), np.float32)
    left[1, 3], left[2, 31] = np.inf, np.nan
    # NaNs differ in bits that mean nothing.
    left.view(np.uint32)[3, 0] = 0x7F800001
    assert np.isnan(product(left, right)[1:4]).all()
    assert (product(left, right)[4:] == 32).all()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 1, 1), (17, 33, 31), (47, 100, 65), (32, 513, 33)])
def test_in_one_part_numbers_are_rounded(rows: int, depth: int, columns: int, turned: bool) -> None:
    torch.manual_seed(rows)
    left, right = torch.randn(rows, depth), torch.randn((columns, depth) if turned else (depth, columns))
    right = right.t() if turned else right
    found = product(left.numpy(), right.numpy(), parts=amx.SHORT)
    rounded = [each.bfloat16().double() for each in (left, right)]
    exact, size = rounded[0] @ rounded[1], rounded[0].abs() @ rounded[1].abs()
    assert (np.abs(found - exact.numpy()) <= (depth + 4) * ROUNDING * size.numpy()).all()


def test_in_one_part_what_is_no_number_stays_so() -> None:
    left, right = np.ones((16, 32), np.float32), np.ones((32, 32), np.float32)
    left[0, 0] = np.inf
    for row, bits in enumerate((0x7FFFFFFF, 0x7F800001, 0xFFC00000), 1):
        left.view(np.uint32)[row, 0] = bits
    found = product(left, right, parts=amx.SHORT)
    assert np.isinf(found[0]).all()
    assert np.isnan(found[1:4]).all()


@pytest.mark.parametrize("parts", [amx.EXACT, amx.SHORT])
def test_the_functions_are_valid(parts: int) -> None:
    verify(str(amx._module(target("amx"), parts)), target("amx"))
    verify(str(lines._module(target("amx"), parts)), target("amx"))
    verify(str(own_lines._module(target("amx"), parts)), target("amx"))


@pytest.mark.parametrize("isa", ["amx", "avx512", "avx2", "neon", "generic"])
@pytest.mark.parametrize("real", ["float", "double"])
def test_sums_with_vectors_are_valid_everywhere(isa: str, real: str) -> None:
    verify(str(windows._module(target(isa), real)), target(isa))
    if real == "float":
        verify(str(own_lines._module(target(isa), 0)), target(isa))
