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
_PLAIN = (Tensor, torch.nn.Parameter)


def unroll_now(
    native: Native, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors,
    matrices: Tensors, lengths: Tensor | None, resets: Tensor | None,
) -> Sequence[Tensor]:  # fmt: skip
    """Run a kernel over steps [B, T, ·]; return the first state after each step [B, T, ·], and the last states.

    Differentiable once. Torch's dispatcher is taken where something watches it or a tensor is more than plain: alone
    it costs as much as a short run.
    """
    # Step after step in memory: what one step reads and writes lies together.
    steps = [x.transpose(0, 1).contiguous() for x in steps]
    groups = (steps, rows, states, fresh, vectors, matrices)
    outputs, *final = _run(native, groups, lengths, resets)
    return [outputs.transpose(0, 1), *final]


def unroll_as_node(
    key: str, steps: Tensors, rows: Tensors, states: Tensors, fresh: Tensors, vectors: Tensors, matrices: Tensors,
    lengths: Tensor | None, resets: Tensor | None,
) -> Sequence[Tensor]:  # fmt: skip
    """Do what `unroll_now` does through torch's dispatcher, so that a graph has it as one node."""
    steps = [x.transpose(0, 1).contiguous() for x in steps]
    outputs, *final, _ = torch.ops.tidegate.unroll(
        key, steps, rows, states, fresh, vectors, matrices, lengths, resets, False
    )
    return [outputs.transpose(0, 1), *final]


def _run(
    native: Native, groups: tuple[Tensors, ...], lengths: Tensor | None, resets: Tensor | None
) -> Sequence[Tensor]:
    tensors = [t for group in groups for t in group]
    if torch._C._len_torch_dispatch_stack() or not all(
        type(t) in _PLAIN and t.is_cpu and not t.is_neg() for t in tensors
    ):
        found: Sequence[Tensor] = torch.ops.tidegate.unroll(native.key, *groups, lengths, resets, False)
        return found[:-1]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _apply(native, native.forward, native.backward, groups, lengths, resets)
    steps, rows, states, fresh, vectors, matrices = groups
    return native.forward(steps, rows, states, fresh, vectors, matrices, lengths, resets, False)[:-1]


def _apply(
    native: Native,
    forward: Any,
    backward: Any,
    groups: Sequence[Tensors],
    lengths: Tensor | None,
    resets: Tensor | None,
) -> Any:
    tensors = [t for group in groups for t in group]
    apply: Any = _Unroll.apply
    return apply(native, forward, backward, list(map(len, groups)), lengths, resets, *tensors)


class _Unroll(torch.autograd.Function):
    """A kernel with its gradient. Tensors come flat; `counts` says how many of each kind."""

    @staticmethod
    def forward(
        ctx: Any, native: Native, forward: Any, backward: Any, counts: Sequence[int], lengths: Tensor | None,
        resets: Tensor | None, *tensors: Tensor,
    ) -> Any:  # fmt: skip
        groups = _groups(counts, tensors)
        steps, rows, states, fresh, vectors, matrices = groups
        outputs, *final, saved = forward(*groups, lengths, resets, True)
        # The kernels stay as long as a gradient may be asked for, though the cell may be gone.
        ctx.native, ctx.backward, ctx.counts = native, backward, (len(steps), len(rows), len(vectors), len(matrices))
        ctx.fresh, ctx.has = len(fresh), (lengths is not None, resets is not None)
        flags = [t for t in (lengths, resets) if t is not None]
        # The states are for a second derivative alone, which is refused whatever it is asked for.
        ctx.first = len(states) + len(fresh)
        ctx.save_for_backward(*states, *fresh, *steps, *rows, *vectors, *matrices, saved, *flags)
        ctx.set_materialize_grads(False)
        return outputs, *final

    @staticmethod
    def backward(ctx: Any, out_gradient: Tensor | None, *final_gradients: Tensor | None) -> Any:
        starts, tensors = list(ctx.saved_tensors[: ctx.first]), list(ctx.saved_tensors[ctx.first :])
        resets = tensors.pop() if ctx.has[1] else None
        lengths = tensors.pop() if ctx.has[0] else None
        saved = tensors.pop()
        steps, rows, vectors, matrices = _groups(ctx.counts, tensors)

        def run() -> Sequence[Tensor]:
            found: Sequence[Tensor] = ctx.backward(
                out_gradient, final_gradients, steps, rows, vectors, matrices, saved, lengths, resets
            )
            return found

        given = [t for t in (out_gradient, *final_gradients) if t is not None]
        found = without_derivative("a compiled kernel", run, [*starts, *tensors, *given])
        to_steps, to_states, to_fresh, to_rest = _groups(
            (len(steps), len(final_gradients), 0 if resets is None else ctx.fresh, len(vectors) + len(matrices)), found
        )
        fresh = to_fresh or [None] * ctx.fresh
        return (*[None] * 6, *to_steps, *([None] * len(rows)), *to_states, *fresh, *to_rest)


def _groups(counts: Sequence[int], tensors: Sequence[Any]) -> list[list[Any]]:
    found, begin = [], 0
    for count in counts:
        found.append(list(tensors[begin : begin + count]))
        begin += count
    return found


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
        *(like.new_empty(s.shape) for s in states),
        like.new_empty(native.saved_size(length, count) if save else 0),
    ]


def _backward(
    key: str, out_gradient: Tensor | None, final_gradients: Sequence[Tensor | None], steps: Tensors, rows: Tensors,
    vectors: Tensors, matrices: Tensors, saved: Tensor, lengths: Tensor | None, resets: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    return NATIVES[key].backward(out_gradient, final_gradients, steps, rows, vectors, matrices, saved, lengths, resets)


def _backward_fake(
    key: str, _out_gradient: Tensor | None, _final_gradients: Sequence[Tensor | None], steps: Tensors, _rows: Tensors,
    vectors: Tensors, matrices: Tensors, _saved: Tensor, _lengths: Tensor | None,
    resets: Tensor | None,
) -> list[Tensor]:  # fmt: skip
    like = steps[0]
    states = [like.new_empty(like.shape[1], size) for size in NATIVES[key].program.states]
    fresh = [] if resets is None else [torch.empty_like(s) for s in states]
    contiguous = (like.new_empty(t.shape) for t in (*vectors, *matrices))
    return [*(like.new_empty(s.shape) for s in steps), *states, *fresh, *contiguous]


def _forward_autograd(key: str, *arguments: Any) -> list[Tensor]:
    *groups, lengths, resets, save = arguments

    def forward(*given: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.tidegate.unroll(key, *given)

    def backward(*given: Any) -> Any:
        return torch.ops.tidegate.unroll_backward(key, *given)

    if torch.is_grad_enabled() and any(t.requires_grad for group in groups for t in group):
        outputs = _apply(NATIVES[key], forward, backward, groups, lengths, resets)
        return [*outputs, outputs[0].new_empty(0)]
    return list(forward(*groups, lengths, resets, save))


_LIBRARY.impl("unroll", _forward, "CPU")
_LIBRARY.impl("unroll_backward", _backward, "CPU")
_LIBRARY.impl("unroll", _forward_autograd, "Autograd")
torch.library.register_fake("tidegate::unroll", _forward_fake, lib=_LIBRARY)
torch.library.register_fake("tidegate::unroll_backward", _backward_fake, lib=_LIBRARY)
