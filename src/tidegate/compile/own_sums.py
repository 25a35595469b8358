"""Matrices' gradients that a kernel's threads add up themselves: what they are told, and what their sums come to."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from tidegate.compile.launch import Launch, Live, Scratch, Table
from tidegate.compile.llvm import own_lines
from tidegate.compile.llvm.amx import LANES, PANEL, ROWS, packed
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lines import AT_ONCE
from tidegate.compile.llvm.own_lines import HEAD, NOTED, PRODUCT, TEAR
from tidegate.compile.loop import Buffers, saved_begins
from tidegate.compile.program import Program
from tidegate.compile.windows import IN_ORDER, Place, Window, line_width, shapes_of, tile_matrices, windows_of

OWN_BYTES, MOST_BYTES = 1 << 19, 1 << 26
"""A block's sums are at most so large, to stay in the second cache, and those of all blocks together."""

_SIZE = torch.float32.itemsize


class OwnSums:
    """The sums of a program's kernel, for a matrix unit that multiplies in so many `parts`, or, in 0, for vectors.

    `saved` are the widths of what is saved.
    """

    def __init__(self, program: Program, saved: Sequence[int], target: Target, parts: int) -> None:
        self._target = target
        self._parts = parts
        self._program = program
        self._saved = saved
        self._shapes = shapes_of(program)
        self._windows = windows_of(program)
        self._whole = tile_matrices(self._windows, self._shapes)
        self._torn, size = _torn(self._windows, parts)
        self._begin = NOTED + _padded(AT_ONCE * program.outer_width, 16)
        self._numbers = self._begin + size
        self._results: list[tuple[int, int, int]] = []
        self._sums = 0
        self._table = self._new_table()

    def fit(self, blocks: int) -> bool:
        """Whether so many blocks may have sums of their own."""
        size = self._sums * _SIZE
        return 0 < size <= OWN_BYTES and blocks * size <= MOST_BYTES

    @contextmanager
    def room(self, run: Live, blocks: int) -> Iterator[tuple[Scratch, Scratch]]:
        """Lend memory for the sums of so many blocks, and what threads have of their own."""
        own = torch.get_num_threads() * self._numbers
        with run.scratch(blocks * self._sums * _SIZE) as sums, run.scratch(own * _SIZE, self._numbers) as lines:
            yield sums, lines

    def begin(
        self, run: Live, room: tuple[Scratch, Scratch], buffers: Buffers, saved: Tensor, steps: int, rows: int,
        blocks: int,
    ) -> tuple[Buffers, list[Tensor]]:  # fmt: skip
        """Return what a kernel is told beside `buffers`, and the matrices that `end` will write.

        It runs over so many steps, rows and blocks of rows.
        """
        sums, own = room
        table, begins = Table(self._table[:]), list(saved_begins(self._saved, steps, rows))
        table.point(HEAD.index("sums"), sums)
        table.numbers[HEAD.index("blocks")] = blocks
        told: Buffers = {}
        for number, ((kind, name, offset, _), _, _) in enumerate(self._torn):
            at = len(HEAD) + number * len(TEAR)
            if kind == "saved":
                table.point(at, saved, begins[int(name)] * _SIZE)
            elif kind != "outer":
                buffer = buffers[kind, name]
                assert isinstance(buffer, Tensor)
                by_row = not buffer.is_contiguous() and buffer.transpose(0, 1).is_contiguous()
                told[kind, name] = dense = buffer if by_row else run.contiguous(buffer)
                table.point(at, dense, offset * _SIZE)
                table.numbers[at + TEAR.index("by_row")] = by_row
        matrices = [run.blank(*shape, dtype=torch.float32, zero=not self._whole) for shape in self._shapes]
        for place, matrix, offset in self._results:
            table.point(place, matrices[matrix], offset * _SIZE)
        told |= {("own", 0): own, ("sums", 0): sums, ("table", 0): table}
        return told, matrices

    def end(self, run: Live, told: Buffers) -> None:
        """Write the matrices, when the kernel is done."""
        table = told["table", 0]
        assert isinstance(table, Table)
        run.launch(Launch(own_lines.compiled(self._target, self._parts), table))

    def _new_table(self) -> array[int]:
        """Return the table as `own_lines` has it, but for addresses; note where results and sums belong."""
        table = array("q", [0] * len(HEAD))
        for place, unit, at in self._torn:
            begin = place[2] if place[0] == "outer" else 0
            stride = line_width(self._program, place, self._saved)
            table.extend([0, begin, stride, place[3], 0, unit == PANEL, at])
        for w in self._windows:
            line = self._shapes[w.matrix][1]
            self._results.append((len(table) + PRODUCT.index("result"), w.matrix, w.row * line + w.column))
            if self._parts:
                high, wide = _padded(w.first[3], ROWS), _padded(w.second[3], PANEL)
                stands = [*self._group(w.first, ROWS), *self._group(w.second, PANEL)]
            else:
                high, wide = w.first[3], _padded(w.second[3], LANES)
                stands = [*self._lines(w.first), *self._lines(w.second)]
            table.extend([*stands, high, wide // PANEL, self._sums, wide, 0, line, w.first[3], w.second[3]])
            self._sums += high * wide
        known = {
            "torn": self._begin, "tears": len(self._torn), "products": len(self._windows),
            "in_order": IN_ORDER.data_ptr(), "apart": self._sums, "adds": not self._whole,
        }  # fmt: skip
        for field, number in known.items():
            table[HEAD.index(field)] = number
        return table

    def _group(self, place: Place, unit: int) -> tuple[int, int]:
        """Return where something is torn, and how many groups of so many columns are left out there."""
        found = _found(self._torn, place, unit)
        assert found is not None
        (other, _, at) = found
        return at, (place[2] - other[2]) // unit

    def _lines(self, place: Place) -> tuple[int, int]:
        """Return at which number of a thread's memory lines begin, and how far they are apart."""
        if place[0] == "outer":
            return NOTED + place[2], self._program.outer_width
        found = _found(self._torn, place, 1)
        assert found is not None
        (other, _, at) = found
        return self._begin + at + place[2] - other[2], other[3]


Torn = tuple[Place, int, int]
"""What is torn: a place, in groups of how many columns, and at which number of a thread's memory."""


def _torn(windows: Sequence[Window], parts: int) -> tuple[list[Torn], int]:
    """Return what products take, each torn once for all that take it or a part of it; and how many numbers that is."""
    firsts, seconds = [w.first for w in windows], [w.second for w in windows]
    column = AT_ONCE
    kinds = [(1, [place for place in firsts + seconds if place[0] != "outer"])]
    if parts:
        column, kinds = packed(AT_ONCE, parts), [(ROWS, firsts), (PANEL, seconds)]
    torn: list[Torn] = []
    size = 0
    for unit, places in kinds:
        for place in sorted(places, key=lambda p: -p[3]):
            if _found(torn, place, unit) is None:
                torn.append((place, unit, size))
                size += _padded(place[3], unit) * column
    return torn, size


def _found(torn: Sequence[Torn], place: Place, unit: int) -> Torn | None:
    """Return what has been torn of which this is all, or some whole groups of columns; or None."""
    for each in torn:
        other, of, _ = each
        before = place[2] - other[2]
        same = of == unit and place[:2] == other[:2]
        if same and before >= 0 and before % unit == 0 and before + place[3] <= other[3]:
            return each
    return None


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit
