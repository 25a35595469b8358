"""Compiled kernels as torch operators: `tidegate::unroll` and its reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from tidegate.compile.native import Native
from tidegate.compile.once import without_derivative

Tensors = Sequence[Tensor]

NATIVES: WeakValueDictionary[str, Native] = WeakValueDictionary()
"""By the key that the operators are given, for as long as a cell or a gradient needs them."""

_LIBRARY: Any = torch.library.Library("tidegate", "FRAGMENT")  # type: ignore[no-untyped-call]
_GIVEN = "Tensor[] steps, Tensor[] rows, Tensor[] states, Tensor[] fresh, Tensor[] vectors, Tensor[] matrices"
_LIBRARY.define(f"unroll(str key, {_GIVEN}, Tensor? lengths, Tensor? resets, bool save) -> Tensor[]")
_LIBRARY.define(
    "unroll_backward(str key, Tensor? out_gradient, Tensor?[] final_gradients, Tensor[] steps, Tensor[] rows, "
    "Tensor[] vectors, Tensor[] matrices, Tensor saved, Tensor? lengths, Tensor? resets) -> Tensor[]"
)


def _forward(
    key: str, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors, matrices: Tensors,
    lengths: Tensor | None, resets: Tensor | None, save: bool,
) -> list[Tensor]:  # fmt: skip
    return NATIVES[key].forward(steps, rows, states, fresh, vectors, matrices, lengths, resets, save)


def _forward_fake(
    key: str, steps: Tensors, _rows: Tensors, states: Tensors, _fresh: Tensors, _vectors: Tensors, _matrices: Tensors,
    _lengths: Tensor | None, _resets: Tensor | None, save: bool,
) -> list[Tensor]:  # fmt: skip
    native, like = NATIVES[key], steps[0]
    length, count = like.shape[:2]
    return [
        like.new_empty(length, count, native.program.states[0]),
        *(torch.empty_like(s) for s in states),
        like.new_empty(native.saved_size(length, count) if save else 0),
    ]


def _backward(
    key: str, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Tensors, rows: Tensors,
    vectors: Tensors, matrices: Tensors, saved: Tensor, lengths: Tensor | None, resets: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    found = NATIVES[key].backward(out_gradient, final_gradients, steps, rows, vectors, matrices, saved, lengths, resets)
    return [g for gradients in found for g in gradients]


def _backward_fake(
    key: str, _out_gradient: Tensor | None, _final_gradients: Sequence[Tensor | None], steps: Tensors, _rows: Tensors,
    vectors: Tensors, matrices: Tensors, _saved: Tensor, _lengths: Tensor | None,
    resets: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    like = steps[0]
    states = [like.new_empty(like.shape[1], size) for size in NATIVES[key].program.states]
    fresh = [] if resets is None else [torch.empty_like(s) for s in states]
    return [
        *(torch.empty_like(s) for s in steps),
        *states,
        *fresh,
        *(torch.empty_like(t) for t in (*vectors, *matrices)),
    ]


class _Unroll(torch.autograd.Function):
    """The operator with its gradient. Tensors come flat; `counts` says how many of each kind."""

    @staticmethod
    def forward(
        ctx: Any, key: str, counts: Sequence[int], lengths: Tensor | None, resets: Tensor | None, *tensors: Tensor
    ) -> Any:
        groups = _groups(counts, tensors)
        steps, rows, _, fresh, vectors, matrices = groups
        with torch._C._AutoDispatchBelowAutograd():
            outputs, *final, saved = torch.ops.tidegate.unroll(key, *groups, lengths, resets, True)
        # The kernels stay as long as a gradient may be asked for, though the cell may be gone.
        ctx.key, ctx.native, ctx.counts = key, NATIVES[key], (len(steps), len(rows), len(vectors), len(matrices))
        ctx.fresh, ctx.has = len(fresh), (lengths is not None, resets is not None)
        flags = [t for t in (lengths, resets) if t is not None]
        ctx.save_for_backward(*steps, *rows, *vectors, *matrices, saved, *flags)
        ctx.set_materialize_grads(False)
        return outputs, *final

    @staticmethod
    def backward(ctx: Any, out_gradient: Tensor | None, *final_gradients: Tensor | None) -> Any:
        tensors = list(ctx.saved_tensors)
        resets = tensors.pop() if ctx.has[1] else None
        lengths = tensors.pop() if ctx.has[0] else None
        saved = tensors.pop()
        steps, rows, vectors, matrices = _groups(ctx.counts, tensors)
        found = torch.ops.tidegate.unroll_backward(
            ctx.key, out_gradient, final_gradients, steps, rows, vectors, matrices, saved, lengths, resets
        )
        reset = 0 if resets is None else ctx.fresh
        to_steps, to_states, to_fresh, to_rest = _groups(
            (len(steps), len(final_gradients), reset, len(vectors) + len(matrices)), found
        )
        fresh = to_fresh or [None] * ctx.fresh
        return (None, None, None, None, *to_steps, *([None] * len(rows)), *to_states, *fresh, *to_rest)


def _groups(counts: Sequence[int], tensors: Sequence[Any]) -> list[list[Any]]:
    rest = iter(tensors)
    return [[next(rest) for _ in range(count)] for count in counts]


def _forward_autograd(
    key: str, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors, matrices: Tensors,
    lengths: Tensor | None, resets: Tensor | None, save: bool,
) -> list[Tensor]:  # fmt: skip
    groups = (steps, rows, states, fresh, vectors, matrices)
    tensors = [t for group in groups for t in group]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        apply: Any = _Unroll.apply
        outputs = apply(key, [len(group) for group in groups], lengths, resets, *tensors)
        return [*outputs, outputs[0].new_empty(0)]
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.tidegate.unroll(key, *groups, lengths, resets, save)


def _backward_autograd(*arguments: Any) -> list[Tensor]:
    tensors = [t for a in arguments for t in (a if isinstance(a, list | tuple) else [a]) if isinstance(t, Tensor)]

    def run() -> list[Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.tidegate.unroll_backward(*arguments)

    return list(without_derivative("a compiled kernel", run, tensors))


_LIBRARY.impl("unroll", _forward, "CPU")
_LIBRARY.impl("unroll_backward", _backward, "CPU")
_LIBRARY.impl("unroll", _forward_autograd, "Autograd")
_LIBRARY.impl("unroll_backward", _backward_autograd, "Autograd")
torch.library.register_fake("tidegate::unroll", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("tidegate::unroll_backward", _backward_fake, lib=_LIBRARY)
