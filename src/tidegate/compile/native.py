"""A cell's step in machine code, on tensors: forward and backward over a padded batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.library import kernel
from tidegate.compile.loop import REALS, Batch, Loop, blank, blocks_of
from tidegate.compile.program import Program
from tidegate.compile.stages import Plan

# Numbers between buffers: without them, what belongs to one unit would lie at equal places of the cache's ways.
APART = 80
_numbers = itertools.count()


class Native:
    """A cell's step in machine code: forward with and without what the reverse needs, and the reverse."""

    def __init__(self, program: Program, target: Target, dtype: torch.dtype) -> None:
        self.program = program
        self.target = target
        self.dtype = dtype
        self.key = f"kernel-{next(_numbers)}"

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
        vectors: Sequence[Tensor], matrices: Sequence[Tensor], lengths: Tensor | None, resets: Tensor | None,
        save: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Run forward over steps [T, B, ·]; return the first state after each step, the last, and what is saved."""
        like, ragged = states[0], lengths is not None
        length, count = steps[0].shape[:2]
        given = self._given(steps, rows, vectors, resets)
        outputs = blank(length, count, self.program.states[0], like=like, zero=ragged)
        final = [blank(*s.shape, like=like) for s in states]
        given["out", 0] = outputs
        for kind, tensors in (("initial", states), ("final", final), ("fresh", initial)):
            given |= {(kind, index): tensor for index, tensor in enumerate(tensors)}
        saved = blank(self.saved_size(length, count) if save else 0, like=like, zero=ragged)
        if save:
            given |= self._saved(saved, length, count)
        loop = self.train if save else self.infer
        loop.run(Batch.of(count, length, lengths), loop.pack(matrices), given, blocks_of(count))
        return [outputs, *final, saved]

    def backward(
        self, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Sequence[Tensor],
        rows: Sequence[Tensor], vectors: Sequence[Tensor], matrices: Sequence[Tensor], saved: Tensor,
        lengths: Tensor | None, resets: Tensor | None,
    ) -> list[list[Tensor]]:  # fmt: skip
        """Run backward; return the gradients of steps, states, what resets put there, vectors and matrices."""
        program, like, ragged = self.program, steps[0], lengths is not None
        length, count = like.shape[:2]
        items = blocks_of(count)
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
        buffers = self._given(steps, rows, vectors, resets) | self._saved(saved, length, count)
        buffers["out_gradient", 0] = _unit_stride(out_gradient)
        if program.outer_width:
            buffers["outer", 0] = blank(length, count, program.outer_width, like=like, zero=ragged)
        buffers |= {("step_gradient", name): g for name, g in zip(program.traced.widths, to_steps, strict=False)}
        for kind, tensors in (("initial", to_states), ("final", finals), ("fresh", to_fresh),
                              ("shared_gradient", to_vectors)):  # fmt: skip
            buffers |= {(kind, index): tensor for index, tensor in enumerate(tensors)}
        self.reverse.run(Batch.of(count, length, lengths), self.reverse.pack(matrices), buffers, items)
        sums = [g if items == 1 else g.sum(0) for g in to_vectors]
        return [
            to_steps, to_states, to_fresh,
            [g.reshape(v.shape) for g, v in zip(sums, vectors, strict=True)],
            self._matrix_gradients(matrices, buffers),
        ]  # fmt: skip

    def saved_size(self, length: int, count: int) -> int:
        """Return how many numbers a run saves."""
        return sum(length * count * node.width + APART for node in self.program.saved)

    def _saved(self, flat: Tensor, length: int, count: int) -> dict[tuple[str, int | str], Tensor]:
        """Return where each saved node stands in the flat memory, [T, B, ·]."""
        found: dict[tuple[str, int | str], Tensor] = {}
        begin = 0
        for number, node in enumerate(self.program.saved):
            size = (length, count, node.width)
            found["saved", number] = flat.as_strided(size, (count * node.width, node.width, 1), begin)
            begin += math.prod(size) + APART
        return found

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
