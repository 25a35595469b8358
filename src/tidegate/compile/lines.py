"""Sums over all lines of two matrices, Pᵀ Q, where the matrix unit computes them."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from tidegate.compile.llvm import amx, lines, threads
from tidegate.compile.llvm.amx import PANEL, ROWS
from tidegate.compile.llvm.host import Target
from tidegate.compile.loop import LINE, fresh

ENOUGH_LINES, ENOUGH_UNITS = 256, 48
"""So many lines, and units (M N / (M + N)), and the matrix unit is faster than torch: tearing costs what it gains."""

AT_ONCE = 96
"""So many lines are torn at a time: with 256 it takes a tenth longer."""

MOST_ROWS = 256
"""The highest part of a result: what is torn for it fits into the second cache."""


def sum_lines(first: Tensor, second: Tensor, target: Target) -> Tensor:
    """Return Pᵀ Q of P [L, M] and Q [L, N], both with unit stride over their columns: [M, N]."""
    rows, columns = first.shape[1], second.shape[1]
    many = first.shape[0] >= ENOUGH_LINES and rows * columns >= ENOUGH_UNITS * (rows + columns)
    if target.isa != "amx" or first.dtype is not torch.float32 or not many:
        return torch.mm(first.t(), second)
    # The wider one is torn once, the other by every thread.
    if rows < columns:
        return _by_tiles(second, first, target).t().contiguous()
    return _by_tiles(first, second, target).contiguous()


def _by_tiles(first: Tensor, second: Tensor, target: Target) -> Tensor:
    entry = lines.compiled(target)
    several = torch.get_num_threads()
    rows, columns = first.shape[1], second.shape[1]
    share = -(-rows // several)
    high = min(MOST_ROWS, -(-share // (2 * ROWS)) * 2 * ROWS)
    parts = -(-rows // high)
    result = fresh((-(-rows // ROWS) * ROWS, -(-columns // PANEL) * PANEL), first.dtype)
    tile_numbers = high * amx.packed(AT_ONCE)
    each = tile_numbers + result.shape[1] * amx.packed(AT_ONCE)
    workers = several if parts > 1 else 1
    memory = fresh((workers * each * first.itemsize + LINE,), torch.uint8)
    values = {
        "parts": parts, "high": high, "rows": rows, "columns": columns, "lines": first.shape[0],
        "first": first.data_ptr(), "first_stride": first.stride(0), "second": second.data_ptr(),
        "second_stride": second.stride(0), "result": result.data_ptr(), "result_stride": result.shape[1],
        "scratch": -(-memory.data_ptr() // LINE) * LINE, "scratch_numbers": each, "tile_numbers": tile_numbers,
        "at_once": AT_ONCE,
    }  # fmt: skip
    argument = array("q", [values.get(name, 0) for name in lines.SLOTS])
    threads.run(entry, argument.buffer_info()[0], workers)
    return result[:rows, :columns]
