"""One compiled plan on tensors: memory, sizes and threads of a run."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.launch import Addressed, Launch, Live, Scratch, Table
from tidegate.compile.llvm import amx, panels
from tidegate.compile.llvm.ahead import AHEAD, AHEAD_TILES
from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.kernel import ENTRY, PREPARE, Kernel
from tidegate.compile.stages import Plan

REALS = {torch.float32: "float", torch.float64: "double"}
MOST_ROWS = 64
TILE_BYTES = 16384
# Panels that are smaller are packed before a second thread has come.
SHARED_BYTES = 1 << 18
MOST_FORMS = 64
# What is written by a run past the cache, as measured: with less, it is better read from there.
LARGE_BYTES = 1 << 20
# Numbers between saved nodes: without them, what belongs to one unit would lie at equal places of the caches' ways. In
# the first cache, 4 KB a way, that is 320 bytes apart, in the second, 32 to 128 KB a way, 8.5 KB.
APART = 2128

Buffers: TypeAlias = dict[tuple[str, int | str], Addressed]


@dataclass(frozen=True)
class Batch:
    """The rows of a run, how many there are, in which order, and its steps, with how many rows have each.

    The steps may be a part of a `whole`, from `first` on.
    """

    rows: int
    steps: int
    order: Tensor
    active: Tensor
    first: int
    whole: int

    @classmethod
    def of(cls, rows: int, steps: int, lengths: Tensor | None) -> Batch:
        if lengths is None:
            return _full(rows, steps, blocks_of(rows))
        longest = torch.sort(lengths, descending=True, stable=True)
        later = torch.arange(steps + 1, device=lengths.device)
        active = rows - torch.searchsorted(longest.values.flip(0).contiguous(), later, right=True)
        return cls(rows, steps, longest.indices, active, 0, steps)

    def stretches(self, steps: int) -> Iterator[Batch]:
        """Give the run in parts of at most so many steps and about as long as each other, the last part first."""
        count = math.ceil(self.steps / max(steps, 1))
        if count <= 1:
            yield self
            return
        ends = [self.steps * number // count for number in range(count + 1)]
        for first, last in reversed(list(pairwise(ends))):
            # Beyond its last step no row of a part goes on.
            active = torch.cat([self.active[first:last], self.active.new_zeros(1)])
            yield Batch(self.rows, last - first, self.order, active, first, self.steps)


@lru_cache(maxsize=64)
def _full(rows: int, steps: int, blocks: int) -> Batch:
    """Return a batch of full rows, each block's side by side in memory.

    A core reads ahead of what it reads and writes: of every other row, it would take the lines that another works on.
    """
    active = torch.full((steps + 1,), rows, device="cpu")
    active[steps] = 0
    dealt = torch.arange(rows, device="cpu") % max(blocks, 1)
    order = torch.argsort(torch.argsort(dealt, stable=True))
    return Batch(rows, steps, order, active, 0, steps)


@dataclass(frozen=True)
class _Form:
    """A kernel's two arguments for batches of one size: their numbers, and the slots that each call fills in.

    Slots come with what belongs there: an offset in bytes into working memory, or into saved memory and for each step,
    a window of a matrix, a buffer's name (and the slots of its strides, where they are not known before).
    """

    numbers: array[int]
    packing: array[int]
    packers: int
    size: int
    order: int
    active: int
    memory: list[tuple[int, int]]
    panels: list[tuple[int, int]]
    windows: list[tuple[int, int, int, int]]
    strides: list[tuple[int, int]]
    saved: list[tuple[int, int, int]]
    buffers: list[tuple[tuple[Any, ...], int, int | None, int | None]]


class Loop:
    """One plan, compiled for numbers of one type; `run` fills its arguments and lets the threads at it.

    `saved` are the widths of the nodes that forward keeps for the reverse, in one flat memory, see `saved_size`;
    `dense` those of the buffers that are always dense, [B, ·] or [T, B, ·], by name.
    """

    def __init__(
        self,
        plan: Plan,
        states: Sequence[int],
        kernel: Kernel,
        target: Target,
        dtype: torch.dtype,
        saved: Sequence[int],
        dense: Mapping[tuple[str, int | str], int],
    ) -> None:
        self.plan = plan
        self.states = states
        self.kernel = kernel
        self.dtype = dtype
        self.bytes = dtype.itemsize
        self.saved = saved
        self.dense = {("saved", number): width for number, width in enumerate(saved)} | dict(dense)
        self._forms: dict[tuple[int, int, int, int, int], _Form] = {}
        self.lanes = target.lanes(REALS[dtype])
        if kernel.tiles:
            amx.compiled(target, kernel.tiles)
        else:
            panels.compiled(target, REALS[dtype])
        self.compiled = compile_module(kernel.text, (ENTRY, PREPARE) if kernel.prepare_slots else (ENTRY,), target)
        self.entry = self.compiled.addresses[ENTRY]

    def run(
        self,
        run: Live,
        batch: Batch,
        matrices: Sequence[Tensor],
        buffers: Buffers,
        items: int,
        saved: Tensor | None = None,
    ) -> None:
        """Run the plan over a batch. Buffers are [B, ·] or [T, B, ·], dense or with unit stride over the last axis.

        Those of a part have its steps, saved memory has the whole's.
        """
        several = torch.get_num_threads()
        form = self.form(batch, items, several)
        with run.scratch(form.size) as own:
            run.launch(*self._launches(form, own, batch, matrices, buffers, items, saved, several))

    def _launches(
        self, form: _Form, own: Scratch, batch: Batch, matrices: Sequence[Tensor], buffers: Buffers, items: int,
        saved: Tensor | None, several: int,
    ) -> list[Launch]:  # fmt: skip
        """Return the packing of matrices, where a form wants it, and the run."""
        told, launches = Table(form.numbers[:], batch), []
        if form.panels:
            packing = Table(form.packing[:])
            for slot, offset in form.panels:
                packing.point(slot, own, offset)
            self._place(form, matrices, packing)
            launches.append(Launch(self.compiled.addresses[PREPARE], packing, form.packers))
        else:
            self._place(form, matrices, told)
        told.numbers[form.order] = batch.order.data_ptr()
        told.numbers[form.active] = batch.active.data_ptr()
        for slot, offset in form.memory:
            told.point(slot, own, offset)
        if saved is not None:
            for slot, offset, step in form.saved:
                told.point(slot, saved, offset + batch.first * step)
        for name, place, row_stride, step_stride in form.buffers:
            buffer = buffers.get(name)
            if buffer is not None:
                told.point(place, buffer)
                if row_stride is not None and isinstance(buffer, Scratch):
                    told.numbers[row_stride] = buffer.apart
                elif row_stride is not None and isinstance(buffer, Tensor):
                    told.numbers[row_stride] = buffer.stride(-2)
                if step_stride is not None and isinstance(buffer, Tensor):
                    told.numbers[step_stride] = buffer.stride(0)
        return [*launches, Launch(self.entry, told, several if items > 1 else 1)]

    def _place(self, form: _Form, matrices: Sequence[Tensor], told: Table) -> None:
        """Tell where the matrices' windows stand."""
        for slot, matrix, row, column in form.windows:
            each = matrices[matrix]
            told.point(slot, each, (row * each.stride(0) + column) * self.bytes)
        for slot, matrix in form.strides:
            told.numbers[slot] = matrices[matrix].stride(0)

    def form(self, batch: Batch, items: int, several: int) -> _Form:
        """Return the arguments for batches of a size, all but what changes from call to call."""
        key = (batch.rows, batch.steps, batch.whole, items, several)
        known = self._forms.get(key)
        if known is None:
            if len(self._forms) >= MOST_FORMS:
                self._forms.clear()
            known = self._forms[key] = self._new_form(*key)
        return known

    def _new_form(self, rows: int, steps: int, whole: int, items: int, several: int) -> _Form:
        workers = several if items > 1 else 1
        each = math.ceil(rows / items) if items else 0
        block = self._block(each)
        offsets, scratch_bytes = self._scratch(each, block)
        panel_offsets, panel_numbers = self._panels if self.kernel.prepare_slots else ({}, 0)
        scratch_begins = -(-panel_numbers * self.bytes // memory.LINE) * memory.LINE
        saved_offsets = list(saved_begins(self.saved, whole, rows))
        values: dict[tuple[Any, ...], int] = {
            ("scratch_bytes",): scratch_bytes,
            ("blocks",): items,
            ("rows",): rows,
            ("steps",): steps,
            ("block",): block,
            ("panel",): 2 * self.lanes,
            ("large",): int(self._written(rows * steps) >= LARGE_BYTES),
        }
        for (kind, which), width in self.dense.items():
            values |= {("row_stride", kind, which): width, ("step_stride", kind, which): rows * width}
        for name in (*self.kernel.slots, *self.kernel.prepare_slots):
            if name[0] in ("number", "stride", "packed", "line", "state_stride"):
                values[name] = self._size(*name)
            elif name[0] == "offset":
                values[name] = offsets[name[1:]]
        slots = {name: slot for slot, name in enumerate(self.kernel.slots)}
        packing = {name: slot for slot, name in enumerate(self.kernel.prepare_slots)}
        matrices = packing or slots
        panels_at = [(("panels", *place), offset * self.bytes) for place, offset in panel_offsets.items()]
        return _Form(
            numbers=array("q", [values.get(name, 0) for name in self.kernel.slots]),
            packing=array("q", [values.get(name, 0) for name in self.kernel.prepare_slots]),
            packers=several if panel_numbers * self.bytes >= SHARED_BYTES else 1,
            size=scratch_begins + workers * scratch_bytes,
            order=slots["order",],
            active=slots["active",],
            memory=[(slots["scratch",], scratch_begins), *((slots[name], offset) for name, offset in panels_at)],
            panels=[(packing[name], offset) for name, offset in panels_at],
            windows=[
                (slot, *name[1:], *[0] * (4 - len(name)))
                for name, slot in matrices.items()
                if name[0] in ("window", "matrix")
            ],
            strides=[(slot, name[2]) for name, slot in matrices.items() if name[:2] == ("row_stride", "matrix")],
            saved=[
                (slot, saved_offsets[name[2]] * self.bytes, rows * self.saved[name[2]] * self.bytes)
                for name, slot in slots.items()
                if name[:2] == ("buffer", "saved")
            ],
            buffers=[
                (name[1:], slot, *self._stride_slots(slots, name[1:]))
                for name, slot in slots.items()
                if name[0] == "buffer" and name[1] != "saved"
            ],
        )

    def _written(self, lines: int) -> int:
        """Return how many bytes outputs and what is saved have, of so many rows at steps."""
        saved = [self.saved[name[2]] for name in self.kernel.slots if name[:2] == ("buffer", "saved")]
        return lines * (self.states[0] + sum(saved)) * self.bytes

    def _size(self, kind: str, number: int) -> int:
        """Return a number that the sizes of a cell give, `number` being a width, or which state it is about."""
        of = {"stride": self._padded, "packed": self._packed, "line": self._panel_padded}
        if kind == "state_stride":
            return self._padded(self.states[number])
        return of[kind](number) if kind in of else int(number)

    def _stride_slots(
        self, slots: Mapping[tuple[Any, ...], int], name: tuple[Any, ...]
    ) -> tuple[int | None, int | None]:
        """Return the slots of a buffer's strides, where only the buffer knows them."""
        if name in self.dense:
            return None, None
        return slots.get(("row_stride", *name)), slots.get(("step_stride", *name))

    def _padded(self, width: int) -> int:
        return -(-width // self.lanes) * self.lanes

    def _block(self, rows: int) -> int:
        """Return how many units products and elementwise parts take in turn: whole panels, a tile that fits L1."""
        panel = 2 * self.lanes
        widest = max((stage.width for stage in self.plan.stages), default=1)
        most = -(-widest // panel)
        tiles = max((len(stage.products) for stage in self.plan.stages), default=1) or 1
        fits = TILE_BYTES // max(1, rows * panel * self.bytes * tiles)
        return panel * max(1, min(most, max(fits, 4 if rows <= 2 else 1)))

    def _packed(self, depth: int) -> int:
        """Return how many numbers a column of `depth` numbers takes in a panel."""
        return amx.packed(depth, self.kernel.tiles) if self.kernel.tiles else depth

    def _panel_padded(self, width: int) -> int:
        return -(-width // (2 * self.lanes)) * 2 * self.lanes

    def _scratch(self, rows: int, block: int) -> tuple[dict[tuple[Any, ...], int], int]:
        """Return where each buffer of a thread begins, in bytes, and the size of all."""
        offsets, total = {}, 0
        if self.kernel.tiles:
            rows = -(-rows // amx.ROWS) * amx.ROWS
        for name in self.kernel.scratch:
            offsets[name] = total
            width = self._scratch_width(name, block)
            size = (rows * width + 2 * self.lanes) * self.bytes
            total += -(-size // memory.LINE) * memory.LINE
        return offsets, total

    def _scratch_width(self, name: tuple[Any, ...], block: int) -> int:
        """Return how many numbers of a scratch buffer each row has."""
        kind, detail = name[0], name[-1]
        if kind in ("now", "then"):
            return self._padded(self.states[detail])
        if kind == "kept":
            return self._padded(detail)
        ahead = AHEAD_TILES if self.kernel.tiles else AHEAD
        if kind == "gathered":
            return ahead * self._padded(detail)
        if kind == "ahead":
            return ahead * self._panel_padded(detail)
        if kind == "torn":
            return amx.packed(detail, self.kernel.tiles)
        if kind == "torn_ahead":
            return ahead * amx.packed(detail, self.kernel.tiles)
        return {"table": 8 // self.bytes, "sums": self.lanes, "tile": block}[kind]

    @cached_property
    def _panels(self) -> tuple[dict[tuple[int, int], int], int]:
        """Return where the panels of each product's terms begin, and the size of all, in numbers."""
        panel = 2 * self.lanes
        offsets, total = {}, 0
        for number, node in enumerate(self.plan.products):
            for term, v in enumerate(node.inputs):
                offsets[number, term] = total
                total += -(-node.width // panel) * panel * self._packed(v.width)
                total += amx.slack(v.width, self.kernel.tiles) if self.kernel.tiles else 0
        return offsets, total


def saved_begins(widths: Sequence[int], steps: int, rows: int) -> Iterator[int]:
    """Give where each saved node, [T, B, width], begins in one flat memory."""
    begin = 0
    for width in widths:
        yield begin
        begin += steps * rows * width + APART


def saved_size(widths: Sequence[int], steps: int, rows: int) -> int:
    """Return how many numbers the saved nodes take."""
    return sum(steps * rows * width + APART for width in widths)


def blocks_of(rows: int) -> int:
    """Return into how many blocks rows are dealt: one for each thread, more where a block would grow large."""
    return _blocks(rows, torch.get_num_threads())


@lru_cache(maxsize=256)
def _blocks(rows: int, threads: int) -> int:
    workers = min(rows, threads)
    rounds = math.ceil(rows / (MOST_ROWS * workers)) if workers else 0
    return min(rows, workers * rounds)
