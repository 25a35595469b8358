"""Compiled kernels as torch operators: `tidegate::unroll` and its reverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from tidegate.compile.native import Native, unit_stride
from tidegate.compile.once import without_derivative

Tensors = Sequence[Tensor]

NATIVES: WeakValueDictionary[str, Native] = WeakValueDictionary()
"""By the key that the operators are given, for as long as a cell, a gradient or anything else holds them."""

_LIBRARY: Any = torch.library.Library("tidegate", "FRAGMENT")  # type: ignore[no-untyped-call]
_GIVEN = "Tensor[] steps, Tensor[] rows, Tensor[] states, Tensor[] fresh, Tensor[] vectors, Tensor[] matrices"
_LIBRARY.define(f"unroll(str key, {_GIVEN}, Tensor? lengths, Tensor? resets, bool save) -> Tensor[]")
_LIBRARY.define(
    "unroll_backward(str key, Tensor? out_gradient, Tensor?[] final_gradients, Tensor[] steps, Tensor[] rows, "
    "Tensor[] vectors, Tensor[] matrices, Tensor saved, Tensor? lengths, Tensor? resets, bool inputs) -> Tensor[]"
)
_PLAIN = (Tensor, torch.nn.Parameter)


def unroll_now(
    native: Native, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors,
    matrices: Tensors, lengths: Tensor | None, resets: Tensor | None,
) -> Sequence[Tensor]:  # fmt: skip
    """Run a kernel over steps [B, T, ·]; return the first state after each step [B, T, ·], and the last states.

    Differentiable once. Torch's dispatcher is taken where something watches it or a tensor is more than plain: alone
    it costs as much as a short run.
    """
    tensors = [*steps, *rows, *states, *fresh, *vectors, *matrices]
    if torch._C._len_torch_dispatch_stack() or not all(
        type(t) in _PLAIN and t.is_cpu and not t.is_neg() for t in tensors
    ):
        return unroll_as_node(native.key, steps, rows, states, fresh, vectors, matrices, lengths, resets)
    return unroll_plain(native, steps, rows, states, fresh, vectors, matrices, lengths, resets)


def unroll_plain(
    native: Native, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors,
    matrices: Tensors, lengths: Tensor | None, resets: Tensor | None,
) -> Sequence[Tensor]:  # fmt: skip
    """Do what `unroll_now` does on plain tensors, while nothing watches torch's dispatcher."""
    groups = steps, rows, states, fresh, vectors, matrices
    tensors = [*steps, *rows, *states, *fresh, *vectors, *matrices]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        # What `apply` does before, for torch.func's transforms, is a third of the time it takes.
        apply: Any = super(torch.autograd.Function, _Unroll).apply
        kernel = Kernel(native, native.forward, native.backward, by_batch=True)
        done: Sequence[Tensor] = apply(kernel, groups, lengths, resets, *tensors)
        return done
    outputs, *final, _ = native.forward(_turned(steps), rows, states, fresh, vectors, matrices, lengths, resets, False)
    return [outputs.transpose(0, 1), *final]


def unroll_as_node(
    key: str, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors, matrices: Tensors,
    lengths: Tensor | None, resets: Tensor | None,
) -> Sequence[Tensor]:  # fmt: skip
    """Do what `unroll_now` does through torch's dispatcher, so that a graph has it as one node."""
    outputs, *final, _ = torch.ops.tidegate.unroll(
        key, _by_time(steps), rows, states, fresh, vectors, matrices, lengths, resets, False
    )
    return [outputs.transpose(0, 1), *final]


def _by_time(steps: Tensors) -> list[Tensor]:
    """Return [B, T, ·] as [T, B, ·], dense."""
    return [x.transpose(0, 1).contiguous() for x in steps]


def _turned(steps: Tensors) -> list[Tensor]:
    """Return [B, T, ·] as [T, B, ·], with lines of unit stride: nothing is copied if it has them."""
    return [unit_stride(x.transpose(0, 1)) for x in steps]


class Kernel(NamedTuple):
    """What a gradient function runs, on steps [T, B, ·]; `by_batch` says that it is given [B, T, ·], and gives that.

    The native code stays as long as a gradient may be asked for, though the cell may be gone.
    """

    native: Native
    forward: Callable[..., Sequence[Tensor]]
    backward: Callable[..., Sequence[Tensor | None]]
    by_batch: bool


Groups: TypeAlias = tuple[Tensors, Tensors, Tensors, Tensors, Tensors, Tensors]
"""Steps, rows, states, what resets put in their place, vectors and matrices."""


class _Unroll(torch.autograd.Function):
    """A kernel with its gradient: tensors come in groups, and flat, for autograd.

    To turn steps in here costs a fraction of doing it with gradients.
    """

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, groups: Groups, lengths: Tensor | None, resets: Tensor | None, *_: Tensor
    ) -> Any:
        steps, rows, states, fresh, vectors, matrices = groups
        by_time = _turned(steps) if kernel.by_batch else steps
        by_time = [x.clone() if x.is_inference() else x for x in by_time]  # those autograd does not keep
        outputs, *final, saved = kernel.forward(by_time, rows, states, fresh, vectors, matrices, lengths, resets, True)
        flags = [t for t in (lengths, resets) if t is not None]
        # For a second derivative alone, which is refused whatever it is asked for.
        asked = [t for t in (*states, *fresh, *steps) if t.requires_grad]
        counts = (len(asked), len(steps), len(rows), len(vectors), len(matrices))
        ctx.kept = kernel, counts, len(fresh), lengths is not None, resets is not None
        ctx.save_for_backward(*asked, *by_time, *rows, *vectors, *matrices, saved, *flags)
        ctx.set_materialize_grads(False)
        # Turned in place: an autograd function's views may not be changed in place.
        return outputs.transpose_(0, 1) if kernel.by_batch else outputs, *final

    @staticmethod
    def backward(ctx: Any, out_gradient: Tensor | None, *final_gradients: Tensor | None) -> Any:
        (kernel, counts, fresh, has_lengths, has_resets), inputs = ctx.kept, ctx.saved_tensors
        tensors = list(inputs)
        resets = tensors.pop() if has_resets else None
        lengths = tensors.pop() if has_lengths else None
        saved = tensors.pop()
        _, steps, rows, vectors, matrices = _groups(counts, tensors)
        wanted = any(ctx.needs_input_grad[4 : 4 + len(steps)])

        def run() -> Sequence[Tensor | None]:
            turned = out_gradient
            if kernel.by_batch and out_gradient is not None:
                turned = out_gradient.transpose(0, 1)
            found = kernel.backward(
                turned, final_gradients, steps, rows, vectors, matrices, saved, lengths, resets, wanted
            )
            to_steps = [
                (each.transpose(0, 1) if kernel.by_batch else each) if moves else None
                for moves, each in zip(kernel.native.moves(inputs=wanted), found[: len(steps)], strict=False)
            ]
            return [*to_steps, *found[len(steps) :]]

        given = [t for t in (out_gradient, *final_gradients) if t is not None]
        found = without_derivative("a compiled kernel", run, [*inputs, *given])
        # Rows have no gradient, nor has what resets would put in the place of states, without any.
        after = len(steps) + len(final_gradients)
        to_fresh = [None] * (0 if has_resets else fresh)
        nothing = [None] * len(rows)
        return (*[None] * 4, *found[: len(steps)], *nothing, *found[len(steps) : after], *to_fresh, *found[after:])


def _groups(counts: Sequence[int], tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    each = iter(tensors)
    return [list(islice(each, count)) for count in counts]


def _forward(
    key: str, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors, matrices: Tensors,
    lengths: Tensor | None, resets: Tensor | None, save: bool,
) -> list[Tensor]:  # fmt: skip
    steps, rows, states, fresh = (_dense(group) for group in (steps, rows, states, fresh))
    return NATIVES[key].forward(steps, rows, states, fresh, vectors, matrices, lengths, resets, save)


def _dense(tensors: Tensors) -> Tensors:
    """Return the tensors dense: whoever rewrites a graph may have chosen other strides."""
    return [t.contiguous() for t in tensors]


def _forward_fake(
    key: str, steps: Tensors, _rows: Tensors, states: Tensors, _fresh: Tensors, _vectors: Tensors, _matrices: Tensors,
    _lengths: Tensor | None, _resets: Tensor | None, save: bool,
) -> list[Tensor]:  # fmt: skip
    native, like = NATIVES[key], steps[0]
    length, count = like.shape[:2]
    return [
        like.new_empty(length, count, native.program.states[0]),
        *(like.new_empty(s.shape) for s in states),
        like.new_empty(native.saved_size(length, count) if save else 0),
    ]


def _backward(
    key: str, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Tensors, rows: Tensors,
    vectors: Tensors, matrices: Tensors, saved: Tensor, lengths: Tensor | None, resets: Tensor | None, inputs: bool,
) -> list[Tensor]:  # fmt: skip
    steps, rows = _dense(steps), _dense(rows)
    given = steps, rows, vectors, matrices, saved, lengths, resets, inputs
    found = NATIVES[key].backward(out_gradient, final_gradients, *given)
    # An operator's results may not share memory, and gradients of vectors do.
    end = len(found) - len(matrices)
    found[end - len(vectors) : end] = [each.clone() for each in found[end - len(vectors) : end] if each is not None]
    return [saved.new_empty(0) if each is None else each.contiguous() for each in found]


def _backward_fake(
    key: str, _out_gradient: Tensor | None, _final_gradients: Sequence[Tensor | None], steps: Tensors, _rows: Tensors,
    vectors: Tensors, matrices: Tensors, _saved: Tensor, _lengths: Tensor | None, resets: Tensor | None,
    inputs: bool,
) -> list[Tensor]:  # fmt: skip
    native, like = NATIVES[key], steps[0]
    moves = native.moves(inputs=inputs)
    to_steps = [like.new_empty(s.shape if moved else 0) for moved, s in zip(moves, steps, strict=False)]
    states = [like.new_empty(like.shape[1], size) for size in native.program.states]
    fresh = [] if resets is None else [torch.empty_like(s) for s in states]
    return [*to_steps, *states, *fresh, *(like.new_empty(t.shape) for t in (*vectors, *matrices))]


def _forward_autograd(key: str, *arguments: Any) -> list[Tensor]:
    *groups, lengths, resets, save = arguments

    def forward(*given: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.tidegate.unroll(key, *given)

    def backward(*given: Any) -> Any:
        return torch.ops.tidegate.unroll_backward(key, *given)

    tensors = [t for group in groups for t in group]
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return list(forward(*groups, lengths, resets, save))
    apply: Any = _Unroll.apply
    kernel = Kernel(NATIVES[key], forward, backward, by_batch=False)
    outputs, *final = apply(kernel, groups, lengths, resets, *tensors)
    return [outputs, *final, outputs.new_empty(0)]


_LIBRARY.impl("unroll", _forward, "CPU")
_LIBRARY.impl("unroll_backward", _backward, "CPU")
_LIBRARY.impl("unroll", _forward_autograd, "Autograd")
torch.library.register_fake("tidegate::unroll", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("tidegate::unroll_backward", _backward_fake, lib=_LIBRARY)
