"""A cell's step in machine code, on tensors: forward and backward over a padded batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from itertools import accumulate, islice
from typing import Any

import torch
from torch import Tensor

from tidegate.compile.launch import Addressed, Inside, Live, Records
from tidegate.compile.lines import MatrixGradients
from tidegate.compile.llvm import amx, own_lines
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.library import kernel
from tidegate.compile.loop import REALS, Batch, Buffers, Loop, blocks_of, saved_size
from tidegate.compile.memory import zeros
from tidegate.compile.own_sums import OwnSums
from tidegate.compile.program import Program
from tidegate.compile.stages import Plan

FEW = 4
"""So many rows times steps, and a matrix is read as it stands: packing costs about as much as reading it so often."""

FEW_ROWS = 2
"""Up to so many rows, inputs are multiplied for several steps ahead: 1.1 times as fast at 64 units, 1.3 times at 256;
measured with AVX2, with more rows there is no difference, whether or not the matrices fit into the cache."""

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

TIMED = ("step", "step_gradient", "out_gradient", "resets")
"""The kinds of buffers that have an entry for each step, apart from those that a stretch has of its own."""


def by_tiles(target: Target, dtype: torch.dtype, rows: int) -> bool:
    """Whether a matrix unit multiplies so many rows: where a core's share fills three quarters of its tiles.

    It adds in another order: whether it does must not depend on lengths, nor on how many threads there are.
    """
    if target.isa != "amx" or dtype is not torch.float32:
        return False
    each = -(-rows // _CORES)
    return 4 * each >= 3 * amx.ROWS * -(-each // amx.ROWS)


class Native:
    """A cell's step in machine code: forward with and without what the reverse needs, and the reverse.

    A matrix unit multiplies numbers in so many `parts`: as they are, or rounded to bfloat16.
    """

    def __init__(self, key: str, program: Program, target: Target, dtype: torch.dtype, parts: int = amx.EXACT) -> None:
        self.parts = parts
        self.key = key
        self.program = program
        self.target = target
        self.dtype = dtype
        self._records = Records()
        self._reverses: dict[tuple[bool, bool, bool], Loop] = {}

    @cached_property
    def infer(self) -> Loop:
        return self._loop(self.program.infer, outputs={0: ("out", 0)})

    @cached_property
    def brief(self) -> Loop:
        """`infer` for few rows and steps: nothing is packed."""
        return self._loop(self.program.infer, outputs={0: ("out", 0)}, direct=True)

    @cached_property
    def infer_ahead(self) -> Loop:
        return self._loop(self.program.infer_ahead, outputs={0: ("out", 0)})

    @cached_property
    def train_ahead(self) -> Loop:
        return self._loop(self.program.forward_ahead, outputs={0: ("out", 0)})

    @cached_property
    def train(self) -> Loop:
        return self._loop(self.program.forward, outputs={0: ("out", 0)})

    @cached_property
    def infer_tiles(self) -> Loop:
        return self._loop(self.program.infer_ahead, outputs={0: ("out", 0)}, tiles=self.parts)

    @cached_property
    def train_tiles(self) -> Loop:
        return self._loop(self.program.forward_ahead, outputs={0: ("out", 0)}, tiles=self.parts)

    def reverse(self, *, tiles: bool, own: bool, inputs: bool) -> Loop:
        """Return the reverse: by a matrix unit, with matrices' gradients added up by threads, to inputs or not."""
        found = self._reverses.get((tiles, own, inputs))
        if found is None:
            parts = self.parts if tiles else 0
            if own:
                own_lines.compiled(self.target, parts)
            saved = {node: number for number, node in enumerate(self.program.saved)}
            found = self._reverses[tiles, own, inputs] = self._loop(
                self.program.backward if inputs else self.program.backward_within,
                outputs={0: ("out_gradient", 0)}, saved=saved, partial=self.program.partial, backward=True,
                tiles=parts, own=own,
            )  # fmt: skip
        return found

    def _loop(self, plan: Plan, **options: Any) -> Loop:
        written = kernel(plan, self.program.states, self.target, REALS[self.dtype], **options)
        return Loop(plan, self.program.states, written, self.target, self.dtype, self._saved, self._dense)

    @cached_property
    def _saved(self) -> list[int]:
        return [node.width for node in self.program.saved]

    @cached_property
    def _dense(self) -> dict[tuple[str, int | str], int]:
        """The widths of what is dense: all but steps, the outputs' gradient, resets, vectors and matrices."""
        traced, states = self.program.traced, self.program.states
        vectors = sum(self._vectors)
        found: dict[tuple[str, int | str], int] = {("out", 0): states[0], ("outer", 0): self.program.outer_width}
        for name, width in traced.widths.items():
            found |= {(kind, name): width for kind in ("row", "step_gradient")}
        for index, size in enumerate(states):
            found |= {(kind, index): size for kind in ("initial", "final", "fresh")}
        return found | {("shared_gradient", index): vectors for index, _ in enumerate(traced.vectors)}

    @cached_property
    def _matrix_gradients(self) -> MatrixGradients:
        return MatrixGradients(self.program, self._saved, self.target, self.dtype, self.parts)

    @cached_property
    def _own_sums(self) -> OwnSums:
        return OwnSums(self.program, self._saved, self.target, 0)

    @cached_property
    def _own_sums_by_tiles(self) -> OwnSums:
        return OwnSums(self.program, self._saved, self.target, self.parts)

    @cached_property
    def names(self) -> list[str]:
        """What steps and rows read, those of steps first."""
        return list(self.program.traced.widths)

    def moves(self, *, inputs: bool) -> list[bool]:
        """Whether the reverse gives a gradient of each of `names`, as an input of steps, where `inputs` says it should.

        Nothing depends smoothly on masks; some gradients are by the way of others.
        """
        return self._moves if inputs else self._moves_within

    @cached_property
    def _moves(self) -> list[bool]:
        return self._moved_by(self.program.backward)

    @cached_property
    def _moves_within(self) -> list[bool]:
        return self._moved_by(self.program.backward_within)

    def _moved_by(self, plan: Plan) -> list[bool]:
        stores = [target for stage in plan.stages for _, target in stage.stores]
        moving = {name for kind, name, _ in stores if kind == "step_gradient"}
        return [name in moving for name in self.names]

    @cached_property
    def _vectors(self) -> list[int]:
        """How many numbers each vector has."""
        traced = self.program.traced
        return [shape.numel() for shape in traced.shapes[: len(traced.vectors)]]

    def forward(
        self, steps: Sequence[Tensor], rows: Sequence[Tensor], states: Sequence[Tensor], initial: Sequence[Tensor],
        vectors: Sequence[Tensor], matrices: Sequence[Tensor], lengths: Tensor | None, resets: Tensor | None,
        save: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Run forward over steps [T, B, ·]; return the first state after each step, the last, and what is saved.

        Rows [B, ·] and states [B, ·] are dense, vectors and the lines of steps and matrices have unit stride.
        """
        length, count = steps[0].shape[:2]
        run = partial(self._forward, length=length, count=count, lengths=lengths, resets=resets, save=save)
        groups = (steps, rows, states, initial, vectors, matrices)
        if lengths is None and resets is None:
            key = _key("train" if save else "infer", length, count, *steps, *matrices)
            return self._records.run(key, run, groups, lambda: length * count > 0)
        return run(Live(), *groups)

    def _forward(
        self, run: Live, steps: Sequence[Tensor], rows: Sequence[Tensor], states: Sequence[Tensor],
        initial: Sequence[Tensor], vectors: Sequence[Tensor], matrices: Sequence[Tensor], *,
        length: int, count: int, lengths: Tensor | None, resets: Tensor | None, save: bool,
    ) -> list[Tensor]:  # fmt: skip
        ragged = lengths is not None
        buffers = self._given(steps, rows, vectors, resets)
        outputs = run.leased(length, count, self.program.states[0], dtype=self.dtype, zero=ragged)
        final = [run.blank(*s.shape, dtype=self.dtype) for s in states]
        saved = run.leased(self.saved_size(length, count) if save else 0, dtype=self.dtype, zero=ragged)
        buffers["out", 0] = outputs
        _put(buffers, initial=states, final=final, fresh=initial)
        loop = self._loop_for(length, count, save)
        loop.run(run, Batch.of(count, length, lengths), matrices, buffers, blocks_of(count), saved)
        return [outputs, *final, saved]

    def _loop_for(self, length: int, count: int, save: bool) -> Loop:
        if length * count <= FEW and not save:
            return self.brief
        if self._by_tiles(count):
            return self.train_tiles if save else self.infer_tiles
        if count <= FEW_ROWS:
            return self.train_ahead if save else self.infer_ahead
        return self.train if save else self.infer

    def _by_tiles(self, count: int) -> bool:
        return by_tiles(self.target, self.dtype, count)

    def backward(
        self, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Sequence[Tensor],
        rows: Sequence[Tensor], vectors: Sequence[Tensor], matrices: Sequence[Tensor], saved: Tensor,
        lengths: Tensor | None, resets: Tensor | None, inputs: bool,
    ) -> list[Tensor | None]:  # fmt: skip
        """Run backward; return the gradients of steps, states, what resets put there, vectors and matrices.

        Those of steps are None where `moves` says that there is none; `inputs` says whether any is asked for.
        """
        length, count = steps[0].shape[:2]
        states = self.program.states
        if out_gradient is None:
            out_gradient = torch.zeros(1, dtype=self.dtype, device="cpu").expand(length, count, states[0])
        finals = [
            zeros(count, size, self.dtype) if g is None else g.contiguous()
            for g, size in zip(final_gradients, states, strict=True)
        ]
        out_gradient = unit_stride(out_gradient)
        inputs = inputs or self.program.backward_within is self.program.backward
        run = partial(self._backward, length=length, count=count, lengths=lengths, resets=resets, inputs=inputs)
        groups = ([out_gradient, saved], finals, steps, rows, vectors, matrices)
        if lengths is None and resets is None:
            key = _key("reverse" if inputs else "within", length, count, out_gradient, *steps, *matrices)
            made = self._records.run(key, run, groups, lambda: self._is_launches(length, count))
        else:
            made = run(Live(), *groups)
        moved = iter(made)
        to_steps = [next(moved) if moves else None for moves in self.moves(inputs=inputs)[: len(steps)]]
        to_states = list(islice(moved, len(states) * (1 if resets is None else 2)))
        to_vectors = next(moved)
        total = to_vectors.sum(0) if to_vectors.dim() > 1 else to_vectors
        return [*to_steps, *to_states, *total.split_with_sizes(self._vectors), *moved]

    def _is_launches(self, length: int, count: int) -> bool:
        """Whether backward over a full batch launches functions, and asks torch for nothing else."""
        if not length * count:
            return False
        sums = self._matrix_gradients
        few = sums.are_few(count, length) and sums.stretch(count, length) >= length
        return few or self._own(length, count) is not None

    def _own(self, length: int, count: int) -> OwnSums | None:
        """Return the sums that threads add up themselves while they run backward, where that is best."""
        if self._by_tiles(count):
            sums = self._own_sums_by_tiles
        elif self.dtype is torch.float32 and self.target.fused and not self._matrix_gradients.are_few(count, length):
            sums = self._own_sums
        else:
            return None
        return sums if sums.fit(blocks_of(count)) else None

    def _backward(
        self, run: Live, first: Sequence[Tensor], finals: Sequence[Tensor], steps: Sequence[Tensor],
        rows: Sequence[Tensor], vectors: Sequence[Tensor], matrices: Sequence[Tensor], *,
        length: int, count: int, lengths: Tensor | None, resets: Tensor | None, inputs: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Return the gradients of steps that there are, of states and of what resets put there.

        Then those of vectors, for each block in one, and those of matrices.
        """
        program, dtype, ragged = self.program, self.dtype, lengths is not None
        (out_gradient, saved), names = first, self.names[: len(steps)]
        to_steps = {
            name: run.leased(*s.shape, dtype=dtype, zero=ragged or ("step_gradient", name) in program.partial)
            for name, moves, s in zip(names, self.moves(inputs=inputs), steps, strict=False)
            if moves
        }
        to_states = [run.blank(count, size, dtype=dtype) for size in program.states]
        to_fresh = [run.blank(count, size, dtype=dtype, zero=True) for size in program.states if resets is not None]
        batch, blocks = Batch.of(count, length, lengths), blocks_of(count)
        to_vectors = run.blank(*([blocks] if blocks > 1 else []), sum(self._vectors), dtype=dtype, zero=True)
        buffers = self._given(steps, rows, vectors, resets)
        buffers["out_gradient", 0] = out_gradient
        buffers |= {("step_gradient", name): gradient for name, gradient in to_steps.items()}
        begins = accumulate(self._vectors[:-1], initial=0)
        shares = [Inside(to_vectors, begin * dtype.itemsize) for begin in begins]
        _put(buffers, initial=to_states, final=finals, fresh=to_fresh, shared_gradient=shares)
        own = self._own(length, count)
        if own is not None:
            loop = self.reverse(tiles=self._by_tiles(count), own=True, inputs=inputs)
            with own.room(run, blocks) as room:
                told, to_matrices = own.begin(run, room, buffers, saved, length, count, blocks)
                loop.run(run, batch, matrices, buffers | told, blocks, saved)
                own.end(run, told)
        else:
            loop = self.reverse(tiles=self._by_tiles(count), own=False, inputs=inputs)
            to_matrices = self._reverse_in_stretches(run, loop, batch, matrices, buffers, saved, ragged)
        return [*to_steps.values(), *to_states, *to_fresh, to_vectors, *to_matrices]

    def _reverse_in_stretches(
        self, run: Live, reverse: Loop, batch: Batch, matrices: Sequence[Tensor], buffers: Buffers, saved: Tensor,
        ragged: bool,
    ) -> list[Tensor]:  # fmt: skip
        """Run backward into `buffers`; return the gradients of matrices, summed up stretch by stretch."""
        sums: list[Tensor] = []
        outer = None
        for part in batch.stretches(self._matrix_gradients.stretch(batch.rows, batch.steps)):
            here = buffers if part is batch else _during(part, buffers)
            for name in self._matrix_gradients.inputs:
                step = here[name]
                assert isinstance(step, Tensor)
                here[name] = run.contiguous(step)
            if outer is None or len(outer) < part.steps:
                outer = run.leased(part.steps, part.rows, self.program.outer_width, dtype=self.dtype)
            now = outer if len(outer) == part.steps else outer[: part.steps]
            here["outer", 0] = now.zero_() if ragged else now
            reverse.run(run, part, matrices, here, blocks_of(part.rows), saved)
            found = self._matrix_gradients.sum(run, here, saved, part)
            sums = [total.add_(each) for total, each in zip(sums, found, strict=True)] if sums else found
            for index, _ in enumerate(self.program.states):
                buffers["final", index] = buffers["initial", index]
        return sums

    def saved_size(self, length: int, count: int) -> int:
        """Return how many numbers a run saves."""
        return saved_size(self._saved, length, count)

    def _given(
        self, steps: Sequence[Tensor], rows: Sequence[Tensor], vectors: Sequence[Tensor], resets: Tensor | None
    ) -> Buffers:
        buffers: Buffers = {}
        for name, step in zip(self.names, steps, strict=False):
            buffers["step", name] = step
        for name, row in zip(self.names[len(steps) :], rows, strict=True):
            buffers["row", name] = row
        for index, vector in enumerate(vectors):
            buffers["shared", index] = vector
        if resets is not None:
            buffers["resets", 0] = resets.t()[..., None]
        return buffers


def _key(kind: str, length: int, count: int, *given: Tensor) -> tuple[Any, ...]:
    """Return what a run depends on beside what tensors hold: how those `given` lie in memory, and the threads."""
    return kind, length, count, torch.get_num_threads(), *[each.stride() for each in given]


def _during(part: Batch, buffers: Buffers) -> Buffers:
    """Return the buffers with only the steps of a part."""
    steps = slice(part.first, part.first + part.steps)
    return {n: each[steps] if n[0] in TIMED and isinstance(each, Tensor) else each for n, each in buffers.items()}


def _put(buffers: Buffers, **kinds: Sequence[Addressed]) -> None:
    for kind, targets in kinds.items():
        for index, target in enumerate(targets):
            buffers[kind, index] = target


def unit_stride(x: Tensor) -> Tensor:
    """Return a tensor whose last axis is dense."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
