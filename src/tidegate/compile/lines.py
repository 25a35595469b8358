"""Sums over all rows and steps of what products contribute to their matrices: Pᵀ Q, whichever way is fastest."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.launch import Launch, Live, Table
from tidegate.compile.llvm import amx, lines, threads, windows
from tidegate.compile.llvm.amx import PANEL, ROWS
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lines import AT_ONCE
from tidegate.compile.loop import MOST_FORMS, REALS, Batch, Buffers, saved_begins
from tidegate.compile.program import Program
from tidegate.compile.windows import IN_ORDER, Place, line_width, shapes_of, tile_matrices, windows_of

FEW_LINES, FEW = 1024, 1 << 24
"""Up to so many lines and multiplications, what calling torch for each matrix costs is worth sparing."""

ALONE = 1 << 20
"""Up to so many multiplications, one thread is done before another has come."""

ENOUGH_LINES, ENOUGH_UNITS = 256, 48
"""So many lines, and units (M N / (M + N)), and the matrix unit is faster than torch: tearing costs what it gains."""

STRETCH_BYTES, STRETCH_UNITS = 1 << 21, 16
"""What a run keeps of a stretch of steps for its matrices stays in the cache; lines are at least so many for each unit
(M N / (M + N)), which makes adding up stretches a few hundredths of summing them."""

MOST_ROWS = 256
"""The highest part of a result: what is torn for it fits into the second cache."""


_FIELD = {field: place for place, field in enumerate(windows.FIELDS)}


class _Table(NamedTuple):
    """The table of `sum_windows` for one size: its numbers but for addresses, and what belongs at each of their places.

    An address is given by buffer, or by matrix, and by how many bytes behind, for saved nodes also of each step.
    """

    numbers: array[int]
    reads: list[tuple[int, tuple[str, int | str], int, int]]
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
        self._windows = windows_of(program)
        self._tables: dict[tuple[int, int, int, int], _Table] = {}

    @cached_property
    def inputs(self) -> list[tuple[str, str]]:
        """The inputs of steps that lines are read from, which must be dense, step by step."""
        places = [place for w in self._windows for place in (w.first, w.second)]
        return list(dict.fromkeys((kind, str(name)) for kind, name, _, _ in places if kind == "step"))

    def stretch(self, rows: int, steps: int) -> int:
        """Return how many of the steps of a run are best summed up at a time."""
        return steps if rows * steps < 2 * self._lines_at_once else max(1, int(self._lines_at_once) // rows)

    @cached_property
    def _lines_at_once(self) -> float:
        if not (self._windows and self._program.outer_width):
            return math.inf
        units = max(w.first[3] * w.second[3] // (w.first[3] + w.second[3]) for w in self._windows)
        fits = STRETCH_BYTES // (self._program.outer_width * self._dtype.itemsize)
        return max(FEW_LINES, fits, STRETCH_UNITS * units)

    def sum(self, run: Live, buffers: Buffers, saved: Tensor, batch: Batch) -> list[Tensor]:
        """Sum what each product contributes to its matrix over all rows and steps. Buffers are [T, B, ·]."""
        if self.are_few(batch.rows, batch.steps):
            several = torch.get_num_threads() if batch.steps * batch.rows * self._numbers > ALONE else 1
            return self._by_windows(run, buffers, saved, batch, several)
        return self._one_by_one(buffers, saved, batch)

    def are_few(self, rows: int, steps: int) -> bool:
        """Whether the sums are one launch, and nothing of torch's."""
        few = rows * steps <= FEW_LINES and rows * steps * self._numbers <= FEW
        return few and self._target.fused and self._whole

    @cached_property
    def _entry(self) -> int:
        return windows.compiled(self._target, REALS[self._dtype])

    @cached_property
    def _shapes(self) -> list[torch.Size]:
        return shapes_of(self._program)

    @cached_property
    def _numbers(self) -> int:
        return sum(w.first[3] * w.second[3] for w in self._windows)

    @cached_property
    def _whole(self) -> bool:
        return tile_matrices(self._windows, self._shapes)

    def _by_windows(self, run: Live, buffers: Buffers, saved: Tensor, batch: Batch, several: int) -> list[Tensor]:
        key = (batch.rows, batch.steps, batch.whole, several)
        known = self._tables.get(key)
        if known is None:
            if len(self._tables) >= MOST_FORMS:
                self._tables.clear()
            known = self._tables[key] = self._table(*key)
        found = [run.blank(*shape, dtype=self._dtype) for shape in self._shapes]
        table = Table(known.numbers[:])
        for place, name, offset, step in known.reads:
            table.point(place, saved if name[0] == "saved" else buffers[name], offset + batch.first * step)
        for place, matrix, offset in known.writes:
            table.point(place, found[matrix], offset)
        told = Table(array("q", [0] * len(windows.SLOTS)))
        told.numbers[windows.SLOTS.index("windows")] = len(table.numbers) // len(windows.FIELDS)
        told.point(windows.SLOTS.index("table"), table)
        run.launch(Launch(self._entry, told, known.workers))
        return found

    def _table(self, count: int, length: int, whole: int, several: int) -> _Table:
        size, begins = self._dtype.itemsize, list(saved_begins(self._saved, whole, count))
        table = _Table(array("q"), [], [], several)
        for w in self._windows:
            rows, columns, stride = w.first[3], w.second[3], self._shapes[w.matrix][1]
            share = max(1, math.ceil(rows / several))
            (first, at_first, wide), (second, at_second, beside) = (
                self._stands(place, begins) for place in (w.first, w.second)
            )
            for begin in range(0, rows, share):
                at, corner = len(table.numbers), (w.row + begin) * stride + w.column
                by_step = [count * each * size if name[0] == "saved" else 0
                           for name, each in ((first, wide), (second, beside))]  # fmt: skip
                table.reads.append((at + _FIELD["first"], first, (at_first + begin) * size, by_step[0]))
                table.reads.append((at + _FIELD["second"], second, at_second * size, by_step[1]))
                table.writes.append((at + _FIELD["result"], w.matrix, corner * size))
                known = {
                    "first_stride": wide, "second_stride": beside, "lines": length * count,
                    "rows": min(share, rows - begin), "columns": columns, "result_stride": stride,
                }  # fmt: skip
                table.numbers.extend([known.get(field, 0) for field in windows.FIELDS])
        return table

    def _one_by_one(self, buffers: Buffers, saved: Tensor, batch: Batch) -> list[Tensor]:
        blank = torch.empty if self._whole else torch.zeros
        found = [blank(shape, dtype=self._dtype, device="cpu") for shape in self._shapes]
        begins, count_lines = list(saved_begins(self._saved, batch.whole, batch.rows)), batch.steps * batch.rows

        def standing(place: Place) -> Tensor:
            name, begin, width = self._stands(place, begins)
            whole = saved if name[0] == "saved" else buffers[name]
            assert isinstance(whole, Tensor)
            skipped = batch.first * batch.rows * width if name[0] == "saved" else 0
            return whole.as_strided((count_lines, place[3]), (width, 1), whole.storage_offset() + begin + skipped)

        for w in self._windows:
            window = found[w.matrix][w.row : w.row + w.first[3], w.column : w.column + w.second[3]]
            total = window if self._whole else torch.empty_like(window)
            sum_lines(standing(w.first), standing(w.second), total, self._target, self._parts)
            if not self._whole:
                window += total
        return found

    def _stands(self, place: Place, begins: Sequence[int]) -> tuple[tuple[str, int | str], int, int]:
        """Return in which buffer something stands, from which number on, and how wide the buffer's lines are."""
        kind, name, offset, _ = place
        begin = begins[int(name)] if kind == "saved" else offset
        return (kind, name), begin, line_width(self._program, place, self._saved)


def sum_lines(first: Tensor, second: Tensor, out: Tensor, target: Target, parts: int) -> None:
    """Write Pᵀ Q of P [L, M] and Q [L, N] to `out` [M, N], all with unit stride over their columns.

    A matrix unit multiplies them in so many parts.
    """
    rows, columns = out.shape
    many = first.shape[0] >= ENOUGH_LINES and rows * columns >= ENOUGH_UNITS * (rows + columns)
    if target.isa != "amx" or first.dtype is not torch.float32 or not many:
        torch.mm(first.t(), second, out=out)
    elif rows < columns:
        # The wider one is torn once, the other by every thread.
        out.copy_(_by_tiles(second, first, None, target, parts).t())
    else:
        _by_tiles(first, second, out, target, parts)


def _by_tiles(first: Tensor, second: Tensor, out: Tensor | None, target: Target, parts: int) -> Tensor:
    """Do what `sum_lines` does; return `out`, or another tensor where none is given."""
    entry = lines.compiled(target, parts)
    several = torch.get_num_threads()
    rows, columns = first.shape[1], second.shape[1]
    share = -(-rows // several)
    high = min(MOST_ROWS, -(-share // (2 * ROWS)) * 2 * ROWS)
    shares = -(-rows // high)
    result = out
    if out is None or rows % ROWS or columns % PANEL:
        result = memory.fresh((-(-rows // ROWS) * ROWS, -(-columns // PANEL) * PANEL), first.dtype)
    assert result is not None
    tile_numbers = high * amx.packed(AT_ONCE, parts)
    each = tile_numbers + -(-columns // PANEL) * PANEL * amx.packed(AT_ONCE, parts)
    workers = several if shares > 1 else 1
    own = memory.leased(workers * each + memory.LINE, dtype=first.dtype)
    values = {
        "shares": shares, "high": high, "rows": rows, "columns": columns, "lines": first.shape[0],
        "first": first.data_ptr(), "first_stride": first.stride(0), "second": second.data_ptr(),
        "second_stride": second.stride(0), "result": result.data_ptr(), "result_stride": result.stride(0),
        "scratch": memory.aligned(own), "scratch_numbers": each, "tile_numbers": tile_numbers, "at_once": AT_ONCE,
        "in_order": IN_ORDER.data_ptr(),
    }  # fmt: skip
    argument = array("q", [values.get(name, 0) for name in lines.SLOTS])
    threads.run(entry, argument.buffer_info()[0], workers)
    if result is out:
        return out
    whole = result[:rows, :columns]
    return whole if out is None else out.copy_(whole)
