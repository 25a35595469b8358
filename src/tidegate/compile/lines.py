"""Sums over all rows and steps of what products contribute to their matrices: Pᵀ Q, whichever way is fastest."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.llvm import amx, lines, threads, windows
from tidegate.compile.llvm.amx import PANEL, ROWS
from tidegate.compile.llvm.host import Target
from tidegate.compile.loop import MOST_FORMS, REALS, saved_begins
from tidegate.compile.program import Outer, Program

FEW_LINES, FEW = 1024, 1 << 24
"""Up to so many lines and multiplications, what calling torch for each matrix costs is worth sparing."""

ALONE = 1 << 20
"""Up to so many multiplications, one thread is done before another has come."""

ENOUGH_LINES, ENOUGH_UNITS = 256, 48
"""So many lines, and units (M N / (M + N)), and the matrix unit is faster than torch: tearing costs what it gains."""

AT_ONCE = 96
"""So many lines are torn at a time: with 256 it takes a tenth longer."""

MOST_ROWS = 256
"""The highest part of a result: what is torn for it fits into the second cache."""


class _Window(NamedTuple):
    """A product's share of a matrix's gradient: where P and Q stand, and which part of the matrix they make.

    Both are `(kind, name, offset, width)`: units of a buffer, a line for each row of each step.
    """

    first: tuple[str, int | str, int, int]
    second: tuple[str, int | str, int, int]
    matrix: int
    row: int
    column: int


class _Table(NamedTuple):
    """The table of `sum_windows` for one size: its numbers but for addresses, and what belongs at each of their places.

    An address is given by buffer, or by matrix, and by how many bytes behind.
    """

    numbers: array[int]
    reads: list[tuple[int, tuple[str, int | str], int]]
    writes: list[tuple[int, int, int]]
    workers: int


class MatrixGradients:
    """The gradients of a program's matrices, from what its runs keep. `saved` are the widths of its saved nodes."""

    def __init__(self, program: Program, saved: Sequence[int], target: Target, dtype: torch.dtype, parts: int) -> None:
        self._parts = parts
        self._program = program
        self._saved = saved
        self._target = target
        self._dtype = dtype
        self._windows = [_window(outer) for outer in program.outers]
        self._tables: dict[tuple[int, int, int], _Table] = {}

    def sum(
        self, buffers: Mapping[tuple[str, int | str], Tensor], saved: Tensor, length: int, count: int
    ) -> list[Tensor]:
        """Sum what each product contributes to its matrix over all rows and steps. Buffers are [T, B, ·]."""
        count_lines = length * count
        multiplications = count_lines * self._numbers
        if self._whole and count_lines <= FEW_LINES and multiplications <= FEW:
            several = torch.get_num_threads() if multiplications > ALONE else 1
            return self._by_windows(buffers, saved, length, count, several)
        return self._one_by_one(buffers, saved, length, count)

    @cached_property
    def _shapes(self) -> list[torch.Size]:
        traced = self._program.traced
        return list(traced.shapes[len(traced.vectors) :])

    @cached_property
    def _numbers(self) -> int:
        return sum(w.first[3] * w.second[3] for w in self._windows)

    @cached_property
    def _whole(self) -> bool:
        """Whether the windows tile their matrices: each number is of one window."""
        covered = [torch.zeros(shape, dtype=torch.int32, device="cpu") for shape in self._shapes]
        for w in self._windows:
            covered[w.matrix][w.row : w.row + w.first[3], w.column : w.column + w.second[3]] += 1
        return all(bool((each == 1).all()) for each in covered)

    def _by_windows(
        self, buffers: Mapping[tuple[str, int | str], Tensor], saved: Tensor, length: int, count: int, several: int
    ) -> list[Tensor]:
        known = self._tables.get((length, count, several))
        if known is None:
            if len(self._tables) >= MOST_FORMS:
                self._tables.clear()
            known = self._tables[length, count, several] = self._table(length, count, several)
        found = [memory.fresh(shape, self._dtype) for shape in self._shapes]
        table = known.numbers[:]
        for place, name, offset in known.reads:
            table[place] = (saved if name[0] == "saved" else buffers[name]).data_ptr() + offset
        for place, matrix, offset in known.writes:
            table[place] = found[matrix].data_ptr() + offset
        address = windows.compiled(self._target, REALS[self._dtype])
        argument = array("q", (0, len(table) // len(windows.FIELDS), table.buffer_info()[0]))
        threads.run(address, argument.buffer_info()[0], known.workers)
        return found

    def _table(self, length: int, count: int, several: int) -> _Table:
        size, begins = self._dtype.itemsize, list(saved_begins(self._saved, length, count))
        table = _Table(array("q"), [], [], several)
        for w in self._windows:
            rows, columns, stride = w.first[3], w.second[3], self._shapes[w.matrix][1]
            share = max(1, math.ceil(rows / several))
            for begin in range(0, rows, share):
                at = len(table.numbers)
                for place, (kind, name, offset, _), more in ((at, w.first, begin), (at + 2, w.second, 0)):
                    if kind == "saved":
                        assert isinstance(name, int)
                        offset = begins[name]
                    table.reads.append((place, (kind, name), (offset + more) * size))
                corner = (w.row + begin) * stride + w.column
                table.writes.append((at + 7, w.matrix, corner * size))
                wide = [self._width(each) for each in (w.first, w.second)]
                high = min(share, rows - begin)
                table.numbers.extend((0, wide[0], 0, wide[1], length * count, high, columns, 0, stride))
        return table

    def _width(self, place: tuple[str, int | str, int, int]) -> int:
        """Return how wide the lines of a buffer are."""
        kind, name, _, width = place
        if kind == "saved":
            return width
        return self._program.outer_width if kind == "outer" else self._program.traced.widths[str(name)]

    def _one_by_one(
        self, buffers: Mapping[tuple[str, int | str], Tensor], saved: Tensor, length: int, count: int
    ) -> list[Tensor]:
        found: list[Tensor | None] = [None] * len(self._shapes)
        begins, count_lines = list(saved_begins(self._saved, length, count)), length * count

        def standing(kind: str, name: int | str, offset: int, width: int) -> Tensor:
            if kind == "saved":
                assert isinstance(name, int)
                whole, total, offset = saved, width, begins[name]
            else:
                whole, total = buffers[kind, name], buffers[kind, name].shape[2]
            return whole.as_strided((count_lines, width), (total, 1), whole.storage_offset() + offset)

        for w in self._windows:
            total = sum_lines(standing(*w.first), standing(*w.second), self._target, self._parts)
            known, shape = found[w.matrix], self._shapes[w.matrix]
            if known is None and total.shape == shape:
                found[w.matrix] = total
                continue
            if known is None:
                known = found[w.matrix] = total.new_zeros(shape)
            known[w.row : w.row + total.shape[0], w.column : w.column + total.shape[1]] += total
        return [
            torch.zeros(shape, dtype=self._dtype, device="cpu") if each is None else each
            for each, shape in zip(found, self._shapes, strict=True)
        ]


def _window(outer: Outer) -> _Window:
    f, gradient = outer.factor, (outer.kind, outer.name, outer.offset, outer.width)
    first, second = (gradient, outer.left) if f.turned else (outer.left, gradient)
    return _Window(first, second, f.matrix, f.row, f.column)


def sum_lines(first: Tensor, second: Tensor, target: Target, parts: int) -> Tensor:
    """Return Pᵀ Q of P [L, M] and Q [L, N], both with unit stride over their columns: [M, N].

    A matrix unit multiplies them in so many parts.
    """
    rows, columns = first.shape[1], second.shape[1]
    many = first.shape[0] >= ENOUGH_LINES and rows * columns >= ENOUGH_UNITS * (rows + columns)
    if target.isa != "amx" or first.dtype is not torch.float32 or not many:
        return torch.mm(first.t(), second)
    # The wider one is torn once, the other by every thread.
    if rows < columns:
        return _by_tiles(second, first, target, parts).t().contiguous()
    return _by_tiles(first, second, target, parts).contiguous()


def _by_tiles(first: Tensor, second: Tensor, target: Target, parts: int) -> Tensor:
    entry = lines.compiled(target, parts)
    several = torch.get_num_threads()
    rows, columns = first.shape[1], second.shape[1]
    share = -(-rows // several)
    high = min(MOST_ROWS, -(-share // (2 * ROWS)) * 2 * ROWS)
    shares = -(-rows // high)
    result = memory.fresh((-(-rows // ROWS) * ROWS, -(-columns // PANEL) * PANEL), first.dtype)
    tile_numbers = high * amx.packed(AT_ONCE, parts)
    each = tile_numbers + result.shape[1] * amx.packed(AT_ONCE, parts)
    workers = several if shares > 1 else 1
    values = {
        "parts": shares, "high": high, "rows": rows, "columns": columns, "lines": first.shape[0],
        "first": first.data_ptr(), "first_stride": first.stride(0), "second": second.data_ptr(),
        "second_stride": second.stride(0), "result": result.data_ptr(), "result_stride": result.shape[1],
        "scratch_numbers": each, "tile_numbers": tile_numbers,
        "at_once": AT_ONCE,
    }  # fmt: skip
    with memory.workspace(workers * each * first.itemsize + memory.LINE) as own:
        values["scratch"] = memory.aligned(own)
        argument = array("q", [values.get(name, 0) for name in lines.SLOTS])
        threads.run(entry, argument.buffer_info()[0], workers)
    return result[:rows, :columns]
