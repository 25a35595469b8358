"""Compiled kernels on tensors: memory, sizes and threads for one run of a plan."""

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
from tidegate.compile.llvm.library import kernel
from tidegate.compile.program import Program
from tidegate.compile.graph import Node
from tidegate.compile.stages import Plan

REALS = {torch.float32: "float", torch.float64: "double"}
LINE = 64
MOST_ROWS = 64
TILE_BYTES = 16384
MOST_FORMS = 64
# Numbers between buffers: without them, what belongs to one unit would lie at equal places of the cache's ways.
APART = 80


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
            ("scratch_bytes",): scratch_bytes, ("blocks",): items, ("rows",): rows, ("steps",): steps, ("block",): block,
        }  # fmt: skip
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
            kind, detail = name[0], name[-1]
            width = {
                "table": lambda _: 8 // self.bytes,
                "now": lambda index: self._padded(self.states[index]),
                "then": lambda index: self._padded(self.states[index]),
                "kept": self._padded,
                "sums": lambda _: self.lanes,
                "tile": lambda _: block,
            }[kind](detail)
            size = (rows * width + 2 * self.lanes) * self.bytes
            total += -(-size // LINE) * LINE
        return offsets, total

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


class Native:
    """A cell's step in machine code: forward with and without what the reverse needs, and the reverse."""

    def __init__(self, program: Program, target: Target, dtype: torch.dtype) -> None:
        self.program = program
        self.target = target
        self.dtype = dtype

    @cached_property
    def infer(self) -> Loop:
        return self._loop(self.program.infer, outputs={0: ("out", 0)})

    @cached_property
    def train(self) -> Loop:
        return self._loop(self.program.forward, outputs={0: ("out", 0)})

    @cached_property
    def reverse(self) -> Loop:
        saved = {node: number for number, node in enumerate(self.program.saved)}
        return self._loop(
            self.program.backward, outputs={0: ("out_gradient", 0)}, saved=saved, partial=self.program.partial,
            backward=True,
        )  # fmt: skip

    def _loop(self, plan: Plan, **options: Any) -> Loop:
        written = kernel(plan, self.program.states, self.target, REALS[self.dtype], **options)
        return Loop(plan, self.program.states, written, self.target, self.dtype)

    def forward(
        self, steps: Sequence[Tensor], rows: Sequence[Tensor], states: Sequence[Tensor], initial: Sequence[Tensor],
        vectors: Sequence[Tensor], matrices: Sequence[Tensor], lengths: Tensor | None, resets: Tensor | None, save: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Run forward over steps [T, B, ·]; return the first state after each step, the last states, and what is saved.

        With `save` the first is [T + 1, B, ·], with the state before the first step in front; the saved is flat.
        """
        like, ragged = states[0], lengths is not None
        length, count = steps[0].shape[:2]
        given = self._given(steps, rows, vectors, resets)
        outputs = blank(length + save, count, self.program.states[0], like=like, zero=ragged)
        final = [blank(*s.shape, like=like) for s in states]
        given["out", 0] = outputs[1:] if save else outputs
        for kind, tensors in (("initial", states), ("final", final), ("fresh", initial)):
            given |= {(kind, index): tensor for index, tensor in enumerate(tensors)}
        kept = self.saved_size(length, count, resets is None) if save else 0
        saved = blank(kept, like=like, zero=ragged)
        if save:
            given |= self._saved(saved, outputs, resets is None)
        loop = self.train if save else self.infer
        loop.run(Batch.of(count, length, lengths), loop.pack(matrices), given, _items(count))
        return [outputs, *final, saved]

    def backward(
        self, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Sequence[Tensor],
        rows: Sequence[Tensor], vectors: Sequence[Tensor], matrices: Sequence[Tensor], outputs: Tensor, saved: Tensor,
        lengths: Tensor | None, resets: Tensor | None,
    ) -> list[list[Tensor]]:  # fmt: skip
        """Run backward; return the gradients of steps, states, what resets put there, vectors and matrices."""
        program, like, ragged = self.program, steps[0], lengths is not None
        length, count = like.shape[:2]
        items = _items(count)
        to_steps = [
            blank(*s.shape, like=like, zero=ragged or ("step_gradient", name) in program.partial)
            for name, s in zip(program.traced.widths, steps, strict=False)
        ]
        to_states = [blank(count, size, like=like) for size in program.states]
        to_fresh = [blank(count, size, like=like, zero=True) for size in program.states] if resets is not None else []
        to_vectors = [blank(items, v.numel(), like=like, zero=True) for v in vectors]
        if out_gradient is None:
            out_gradient = like.new_zeros(program.states[0]).expand(length, count, program.states[0])
        finals = [
            blank(count, size, like=like, zero=True) if g is None else g.contiguous()
            for g, size in zip(final_gradients, program.states, strict=True)
        ]
        buffers = self._given(steps, rows, vectors, resets) | self._saved(saved, outputs, resets is None)
        buffers["out_gradient", 0] = _unit_stride(out_gradient)
        if program.outer_width:
            buffers["outer", 0] = blank(length, count, program.outer_width, like=like, zero=ragged)
        buffers |= {("step_gradient", name): g for name, g in zip(program.traced.widths, to_steps, strict=False)}
        for kind, tensors in (("initial", to_states), ("final", finals), ("fresh", to_fresh),
                              ("shared_gradient", to_vectors)):  # fmt: skip
            buffers |= {(kind, index): tensor for index, tensor in enumerate(tensors)}
        self.reverse.run(Batch.of(count, length, lengths), self.reverse.pack(matrices), buffers, items)
        sums = [g.sum(0) if items > 1 else g for g in to_vectors]
        return [
            to_steps, to_states, to_fresh,
            [g.reshape(v.shape) for g, v in zip(sums, vectors, strict=True)],
            self._matrix_gradients(matrices, buffers),
        ]  # fmt: skip

    def saved_size(self, length: int, count: int, carried: bool) -> int:
        """Return how many numbers a run saves, the outputs left out where they hold the `carried` states."""
        return sum(length * count * n.width + APART for n in self.program.saved if not (carried and self._is_output(n)))

    def _saved(self, flat: Tensor, outputs: Tensor, carried: bool) -> dict[tuple[str, int | str], Tensor]:
        """Return where each saved node stands: in the flat memory, or, if states are `carried`, among the outputs."""
        found: dict[tuple[str, int | str], Tensor] = {}
        length, count, begin = outputs.shape[0] - 1, outputs.shape[1], 0
        for number, node in enumerate(self.program.saved):
            if carried and self._is_output(node):
                found["saved", number] = outputs[:-1]
                continue
            size = (length, count, node.width)
            found["saved", number] = flat.as_strided(size, (count * node.width, node.width, 1), begin)
            begin += math.prod(size) + APART
        return found

    def _is_output(self, node: Node) -> bool:
        """Whether a node is the first state before the step, which is the output of the step before."""
        return node.op == "state" and node.attributes == (0, 0) and node.width == self.program.states[0]

    def _given(
        self, steps: Sequence[Tensor], rows: Sequence[Tensor], vectors: Sequence[Tensor], resets: Tensor | None
    ) -> dict[tuple[str, int | str], Tensor]:
        names = list(self.program.traced.widths)
        buffers: dict[tuple[str, int | str], Tensor] = {}
        buffers |= {("step", name): s for name, s in zip(names, steps, strict=False)}
        buffers |= {("row", name): r for name, r in zip(names[len(steps) :], rows, strict=True)}
        buffers |= {("shared", index): v[None] for index, v in enumerate(vectors)}
        if resets is not None:
            buffers["resets", 0] = resets.t()[..., None]
        return buffers

    def _matrix_gradients(
        self, matrices: Sequence[Tensor], buffers: Mapping[tuple[str, int | str], Tensor]
    ) -> list[Tensor]:
        """Sum what each product contributes to its matrix over all rows and steps, as large products."""
        found: list[Tensor | None] = [None] * len(matrices)
        for outer in self.program.outers:
            left = _columns(buffers, *outer.left)
            gradient = _columns(buffers, outer.kind, outer.name, outer.offset, outer.width)
            f = outer.factor
            first, second = (gradient, left) if f.turned else (left, gradient)
            known, shape = found[f.matrix], matrices[f.matrix].shape
            if known is None and (first.shape[1], second.shape[1]) == shape:
                found[f.matrix] = first.t() @ second
                continue
            if known is None:
                known = found[f.matrix] = first.new_zeros(shape)
            window = known[f.row : f.row + first.shape[1], f.column : f.column + second.shape[1]]
            window.addmm_(first.t(), second)
        return [m.new_zeros(m.shape) if g is None else g for g, m in zip(found, matrices, strict=True)]


def _columns(
    buffers: Mapping[tuple[str, int | str], Tensor], kind: str, name: int | str, offset: int, width: int
) -> Tensor:
    """Return some units of a buffer, a row for each row of each step."""
    whole = buffers[kind, name].flatten(0, 1)
    return whole if width == whole.shape[1] else whole[:, offset : offset + width]


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _items(rows: int) -> int:
    """Return into how many blocks rows are dealt: one for each thread, more where a block would grow large."""
    workers = min(rows, torch.get_num_threads())
    rounds = math.ceil(rows / (MOST_ROWS * workers)) if workers else 0
    return min(rows, workers * rounds)
