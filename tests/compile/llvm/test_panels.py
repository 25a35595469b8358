"""Packing and the register-tile product against NumPy, and against themselves: every tile must give the same bits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from llvmlite import ir

from tidegate.compile.llvm.engine import Compiled, compile_module, verify
from tidegate.compile.llvm.host import target
from tidegate.compile.llvm.panels import define_pack, define_product

PACK = [ctypes.c_void_p, *[ctypes.c_int64] * 4, ctypes.c_void_p, ctypes.c_int64]
PRODUCT = [
    *[ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64],
    *[ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_bool],
]
REALS = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class Native:
    """Both functions, compiled for this machine."""

    dtype: np.dtype
    lanes: int
    code: Compiled
    pack: Callable[..., None]
    product: Callable[..., None]

    def packed(self, matrix: np.ndarray, panel_stride: int | None = None) -> np.ndarray:
        depth, columns = matrix.shape
        count, width = -(-columns // (2 * self.lanes)), 2 * self.lanes
        panels = np.full((count, panel_stride or depth * width), np.nan, self.dtype)
        row_stride, column_stride = (stride // matrix.itemsize for stride in matrix.strides)
        address = matrix.ctypes.data
        self.pack(address, row_stride, column_stride, depth, columns, panels.ctypes.data, panels.shape[1])
        return panels

    def times(
        self, left: np.ndarray, panels: np.ndarray, result: np.ndarray, accumulate: bool, alone: bool = False
    ) -> np.ndarray:
        """`result (+)= left · panels` for results of shape (row, panel, column); of the last panel a vector `alone`."""
        lda, ldc, step = left.strides[0], *result.strides[:2]
        size = left.itemsize
        self.product(
            *(*left.shape, left.ctypes.data, lda // size, panels.ctypes.data, panels.shape[1]),
            *(2 * panels.shape[0] - alone, result.ctypes.data, ldc // size, step // size, accumulate),
        )
        return result


def compiled(dtype: np.dtype, lanes: int, registers: int) -> Native:
    module = ir.Module()
    real = REALS[dtype.name]
    functions = [define_pack(module, real, lanes), define_product(module, real, lanes, registers)]
    for function in functions:
        function.linkage = "external"
    code = compile_module(str(module), [function.name for function in functions])
    pack, product = (
        ctypes.CFUNCTYPE(None, *kinds)(code.addresses[function.name])
        for kinds, function in zip((PACK, PRODUCT), functions, strict=True)
    )
    return Native(dtype, lanes, code, pack, product)


@pytest.fixture(scope="module", params=["float32-8-16", "float64-4-16", "float32-4-32"])
def native(request: pytest.FixtureRequest) -> Native:
    name, lanes, registers = request.param.split("-")
    return compiled(np.dtype(name), int(lanes), int(registers))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


def normal(random: np.random.Generator, native: Native, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(native.dtype)


@pytest.mark.parametrize(("depth", "columns"), [(1, 1), (17, 17), (16, 64), (19, 40), (33, 7), (0, 20)])
@pytest.mark.parametrize("order", ["rows", "columns", "neither"])
def test_panels_hold_the_matrix_and_zeros_beyond(native, random, depth: int, columns: int, order: str) -> None:
    matrix = {
        "rows": normal(random, native, depth, columns + 3)[:, :columns],
        "columns": normal(random, native, columns, depth + 3)[:, :depth].T,
        "neither": normal(random, native, 2 * depth, 3 * columns)[::2, ::3],
    }[order]
    width = 2 * native.lanes
    stride = depth * width + 5
    panels = native.packed(matrix, stride)
    padded = np.zeros((depth, panels.shape[0] * width), native.dtype)
    padded[:, :columns] = matrix
    expected = padded.reshape(depth, panels.shape[0], width).swapaxes(0, 1)
    np.testing.assert_array_equal(panels[:, : depth * width].reshape(expected.shape), expected)
    assert np.isnan(panels[:, depth * width :]).all()


@pytest.mark.parametrize("rows", [*range(1, 15), 27])
@pytest.mark.parametrize(("depth", "columns"), [(1, 16), (17, 100), (64, 33), (100, 64)])
def test_product_agrees_with_numpy(native, random, rows: int, depth: int, columns: int) -> None:
    left, right = normal(random, native, rows, depth + 3)[:, :depth], normal(random, native, depth, columns)
    panels, width = native.packed(right), 2 * native.lanes
    memory = np.full((rows + 1, panels.shape[0] + 1, width + 3), np.nan, native.dtype)
    result = native.times(left, panels, memory[:rows, :-1, :width], accumulate=False)
    expected = left.astype(np.float64) @ right.astype(np.float64)
    bound = 2 * depth * np.finfo(native.dtype).eps * (np.abs(left).astype(float) @ np.abs(right).astype(float))
    flat = result.reshape(rows, -1)
    assert (np.abs(flat[:, :columns] - expected) <= bound).all()
    np.testing.assert_array_equal(flat[:, columns:], 0)
    result[:] = 0
    np.testing.assert_array_equal(np.isnan(memory), expected_untouched(memory, rows, width))


def expected_untouched(memory: np.ndarray, rows: int, width: int) -> np.ndarray:
    untouched = np.ones(memory.shape, bool)
    untouched[:rows, :-1, :width] = False
    return untouched


@pytest.mark.parametrize("rows", [*range(1, 15), 27])
@pytest.mark.parametrize(("depth", "panels"), [(0, 1), (1, 1), (37, 1), (512, 1), (20, 3), (21, 6)])
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_vector_alone(native, random, rows: int, depth: int, panels: int, accumulate: bool) -> None:
    """The half after it is not touched, panels before it are as ever, and a row has the bits that it has alone."""
    left, right = normal(random, native, rows, depth), normal(random, native, depth, 2 * native.lanes * panels)
    packed, start = native.packed(right), normal(random, native, rows, panels, 2 * native.lanes)
    found = native.times(left, packed, start.copy(), accumulate, alone=True)
    whole = native.times(left, packed, start.copy(), accumulate)
    np.testing.assert_array_equal(found[:, -1, native.lanes :], start[:, -1, native.lanes :])
    np.testing.assert_array_equal(found[:, :-1], whole[:, :-1])
    bound = (
        4 * (depth + 1) * np.finfo(native.dtype).eps * (np.abs(left) @ np.abs(right) + np.abs(start.reshape(rows, -1)))
    )
    assert (np.abs(found - whole).reshape(rows, -1) <= bound)[:, : -native.lanes].all()
    for row in range(rows):
        one = native.times(left[row : row + 1], packed, start[row : row + 1].copy(), accumulate, alone=True)
        np.testing.assert_array_equal(one[0], found[row])


@pytest.mark.parametrize("count", range(1, 9))
def test_a_rows_bits_do_not_depend_on_the_rows_and_panels_beside_it(native, random, count: int) -> None:
    rows, depth, width = 29, 37, 2 * native.lanes
    left = normal(random, native, rows, depth)
    panels = native.packed(normal(random, native, depth, count * width))
    start = normal(random, native, rows, count, width)
    for accumulate in (False, True):
        alone = start.copy()
        for row in range(rows):
            for panel in range(count):
                one = slice(row, row + 1), slice(panel, panel + 1)
                native.times(left[one[0]], panels[one[1]], alone[one], accumulate)
        for size in range(1, rows + 1):
            together = native.times(left[:size], panels, start[:size].copy(), accumulate)
            np.testing.assert_array_equal(together, alone[:size])


def test_accumulating_parts_of_k_equals_all_of_k_bit_for_bit(native, random) -> None:
    left, right = normal(random, native, 9, 41), normal(random, native, 41, 50)
    panels, width = native.packed(right), 2 * native.lanes
    whole = native.times(left, panels, np.full((9, panels.shape[0], width), np.nan, native.dtype), accumulate=False)
    parts = native.times(left[:, :13], panels, np.full_like(whole, np.nan), accumulate=False)
    native.times(left[:, 13:], np.ascontiguousarray(panels[:, 13 * width :]), parts, accumulate=True)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("accumulate", [False, True])
def test_an_empty_sum_is_zero_or_what_was_there(native, random, accumulate: bool) -> None:
    width = 2 * native.lanes
    start = normal(random, native, 7, 3, width)
    left, panels = np.empty((7, 0), native.dtype), np.empty((3, 0), native.dtype)
    result = native.times(left, panels, start.copy(), accumulate)
    np.testing.assert_array_equal(result, start if accumulate else np.zeros_like(start))


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon", "generic"])
@pytest.mark.parametrize("real", ["float", "double"])
def test_every_instruction_set_gets_valid_functions(real: str, isa: str) -> None:
    module, machine = ir.Module(), target(isa)
    define_pack(module, real, machine.lanes(real))
    define_product(module, real, machine.lanes(real), machine.registers)
    verify(str(module), machine)
