"""One compiled plan on tensors: memory, sizes and threads of a run."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from tidegate.compile.llvm import panels, threads
from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.kernel import ENTRY, PREPARE, Kernel
from tidegate.compile.stages import Plan

REALS = {torch.float32: "float", torch.float64: "double"}
LINE = 64
MOST_ROWS = 64
TILE_BYTES = 16384
MOST_FORMS = 64


@dataclass(frozen=True)
class Batch:
    """The rows of a run: how many there are, how long, in which order, and how many have each step."""

    rows: int
    steps: int
    order: Tensor
    active: Tensor

    @classmethod
    def of(cls, rows: int, steps: int, lengths: Tensor | None) -> Batch:
        if lengths is None:
            return _full(rows, steps)
        longest = torch.sort(lengths, descending=True, stable=True)
        later = torch.arange(steps + 1)
        active = rows - torch.searchsorted(longest.values.flip(0).contiguous(), later, right=True)
        return cls(rows, steps, longest.indices, active)


@lru_cache(maxsize=64)
def _full(rows: int, steps: int) -> Batch:
    active = torch.full((steps + 1,), rows)
    active[steps] = 0
    return Batch(rows, steps, torch.arange(rows), active)


def blank(*shape: int, like: Tensor, zero: bool = False) -> Tensor:
    """Return memory for a kernel to write; what it does not write is never read, unless it must be `zero`."""
    if zero:
        return torch.zeros(shape, dtype=like.dtype)
    return fresh(shape, like.dtype)


def fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return memory that may hold anything; tests have it hold NaN."""
    return torch.empty(shape, dtype=dtype)


@dataclass(frozen=True)
class _Form:
    """A kernel's argument for batches of one size: its numbers, and the slots that each call fills in."""

    numbers: array[int]
    scratch_bytes: int
    scratch: int
    order: int
    active: int
    panels: list[tuple[int, int]]
    buffers: dict[tuple[Any, ...], tuple[int, int | None, int | None]]


class Loop:
    """One plan, compiled for numbers of one type; `run` fills its argument and lets the threads at it."""

    def __init__(self, plan: Plan, states: Sequence[int], kernel: Kernel, target: Target, dtype: torch.dtype) -> None:
        self.plan = plan
        self.states = states
        self.kernel = kernel
        self.dtype = dtype
        self.bytes = dtype.itemsize
        self._forms: dict[tuple[int, int, int], _Form] = {}
        self.lanes = target.lanes(REALS[dtype])
        panels.compiled(target, REALS[dtype])
        self.compiled = compile_module(kernel.text, (ENTRY, PREPARE), target)

    def pack(self, matrices: Sequence[Tensor]) -> Tensor:
        """Pack the windows of the matrices that products multiply by; return the panels."""
        offsets, total = self._panels
        packed = fresh((total,), self.dtype)
        address = packed.data_ptr()
        values: dict[tuple[Any, ...], int] = {("panel",): 2 * self.lanes}
        for place, offset in offsets.items():
            values["panels", *place] = address + offset * self.bytes
        for name in self.kernel.prepare_slots:
            if name[0] == "window":
                m = matrices[name[1]]
                values[name] = m.data_ptr() + (name[2] * m.stride(0) + name[3]) * self.bytes
            elif name[0] == "row_stride":
                values[name] = matrices[name[2]].stride(0)
            elif name[0] == "number":
                values[name] = name[1]
        argument = array("q", [values[name] for name in self.kernel.prepare_slots])
        threads.run(self.compiled.addresses[PREPARE], argument.buffer_info()[0], 1)
        return packed

    def run(self, batch: Batch, packed: Tensor, buffers: Mapping[tuple[str, int | str], Tensor], items: int) -> None:
        """Run the plan over a batch. Buffers are [B, ·] or [T, B, ·], with unit stride over the last axis."""
        form = self._form(batch.rows, batch.steps, items)
        workers = min(items, torch.get_num_threads())
        scratch = fresh((workers * form.scratch_bytes + LINE,), torch.uint8)
        argument = array("q", form.numbers)
        argument[form.scratch] = -(-scratch.data_ptr() // LINE) * LINE
        argument[form.order] = batch.order.data_ptr()
        argument[form.active] = batch.active.data_ptr()
        address = packed.data_ptr()
        for slot, offset in form.panels:
            argument[slot] = address + offset
        for name, (place, row_stride, step_stride) in form.buffers.items():
            buffer = buffers.get(name)
            if buffer is not None:
                argument[place] = buffer.data_ptr()
                *steps, by_row, _ = buffer.stride()
                if row_stride is not None:
                    argument[row_stride] = by_row
                if step_stride is not None:
                    argument[step_stride] = steps[0]
        several = torch.get_num_threads() if workers > 1 else 1
        threads.run(self.compiled.addresses[ENTRY], argument.buffer_info()[0], several)

    def _form(self, rows: int, steps: int, items: int) -> _Form:
        """Return the argument for batches of a size, all but what changes from call to call."""
        known = self._forms.get((rows, steps, items))
        if known is None:
            if len(self._forms) >= MOST_FORMS:
                self._forms.clear()
            known = self._forms[rows, steps, items] = self._new_form(rows, steps, items)
        return known

    def _new_form(self, rows: int, steps: int, items: int) -> _Form:
        each = math.ceil(rows / items) if items else 0
        block = self._block(each)
        offsets, scratch_bytes = self._scratch(each, block)
        values: dict[tuple[Any, ...], int] = {
            ("scratch_bytes",): scratch_bytes,
            ("blocks",): items,
            ("rows",): rows,
            ("steps",): steps,
            ("block",): block,
        }
        for name in self.kernel.slots:
            if name[0] == "number":
                values[name] = int(name[1])
            elif name[0] == "stride":
                values[name] = self._padded(name[1])
            elif name[0] == "state_stride":
                values[name] = self._padded(self.states[name[1]])
            elif name[0] == "offset":
                values[name] = offsets[name[1:]]
        slots = {name: slot for slot, name in enumerate(self.kernel.slots)}
        return _Form(
            numbers=array("q", [values.get(name, 0) for name in self.kernel.slots]),
            scratch_bytes=scratch_bytes,
            scratch=slots["scratch",],
            order=slots["order",],
            active=slots["active",],
            panels=[(slots["panels", *place], offset * self.bytes) for place, offset in self._panels[0].items()],
            buffers={
                name[1:]: (slot, slots.get(("row_stride", *name[1:])), slots.get(("step_stride", *name[1:])))
                for name, slot in slots.items()
                if name[0] == "buffer"
            },
        )

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

    def _scratch(self, rows: int, block: int) -> tuple[dict[tuple[Any, ...], int], int]:
        """Return where each buffer of a thread begins, in bytes, and the size of all."""
        offsets, total = {}, 0
        for name in self.kernel.scratch:
            offsets[name] = total
            width = self._scratch_width(name, block)
            size = (rows * width + 2 * self.lanes) * self.bytes
            total += -(-size // LINE) * LINE
        return offsets, total

    def _scratch_width(self, name: tuple[Any, ...], block: int) -> int:
        """Return how many numbers of a scratch buffer each row has."""
        kind, detail = name[0], name[-1]
        if kind in ("now", "then"):
            return self._padded(self.states[detail])
        if kind == "kept":
            return self._padded(detail)
        return {"table": 8 // self.bytes, "sums": self.lanes, "tile": block}[kind]

    @cached_property
    def _panels(self) -> tuple[dict[tuple[int, int], int], int]:
        """Return where the panels of each product's terms begin, and the size of all, in numbers."""
        panel = 2 * self.lanes
        offsets, total = {}, 0
        for number, node in enumerate(self.plan.products):
            for term, v in enumerate(node.inputs):
                offsets[number, term] = total
                total += -(-node.width // panel) * panel * v.width
        return offsets, total


def blocks_of(rows: int) -> int:
    """Return into how many blocks rows are dealt: one for each thread, more where a block would grow large."""
    workers = min(rows, torch.get_num_threads())
    rounds = math.ceil(rows / (MOST_ROWS * workers)) if workers else 0
    return min(rows, workers * rounds)
