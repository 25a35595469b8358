"""The linear recurrence `h_t = a_t⊙h_{t-1} + b_t` as one torch operator, and its derivative as another."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tidegate.compile import pages
from tidegate.compile.once import without_derivative
from tidegate.errors import ShapeError

STREAMING_BYTES = 16 << 20
"""From here on results go past the cache, which would not hold them until they are read."""

LINE_BYTES = 64
STRETCH = 256
CHUNK_STEPS = 2048
"""Chunks are not cut shorter."""

TILE_CHANNELS = 64
CORES = os.cpu_count() or 1
PARALLEL_NUMBERS = 1 << 15
"""From here on threads are worth waking."""

_library = torch.library.Library("tidegate", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "linear_recurrence(Tensor a, Tensor b, Tensor h0, Tensor? lengths, Tensor? resets, "
    "Tensor? fresh, bool is_complex) -> (Tensor, Tensor)"
)
_library.define(  # type: ignore[no-untyped-call]
    "linear_recurrence_backward(Tensor a, Tensor h, Tensor h0, Tensor? dh, Tensor? dlast, Tensor? lengths, "
    "Tensor? resets, Tensor? fresh, bool is_complex) -> (Tensor, Tensor, Tensor, Tensor)"
)
_forward = torch.ops.tidegate.linear_recurrence.default
_backward = torch.ops.tidegate.linear_recurrence_backward.default


def linear_recurrence(
    a: Tensor,
    b: Tensor,
    h0: Tensor,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    fresh: Tensor | None = None,
    *,
    is_complex: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return every state [B, T, H] of `h_t = a_t⊙h_{t-1} + b_t`, and each row's last one [B, H].

    `b` [B, T, H]; `a` the same, or of size 1 in B or T; `h0` [B, H]. From `lengths[b]` on, row b's state stands
    still, h is 0 and nothing is read. Where `resets` [B, T] is true, the state before that step is `fresh` [B, H],
    zeros unless given. With `is_complex` the first half of the last axis holds real parts, the second half
    imaginary ones.

    On the CPU, in float32 or float64. Differentiable once in a, b, h0 and fresh. A row's result does not depend on
    other rows, on its padding or on the number of threads. Raises `ShapeError` where the tensors do not fit.
    """
    _check(a, b, h0, lengths, resets, fresh, is_complex)
    after: tuple[Tensor, Tensor] = _forward(a, b, h0, lengths, resets, fresh, is_complex)
    return after


def _check(
    a: Tensor, b: Tensor, h0: Tensor, lengths: Tensor | None, resets: Tensor | None, fresh: Tensor | None, paired: bool
) -> None:
    if b.dim() != 3:
        raise ShapeError("running a linear recurrence", expected="b of shape [B, T, H]", got=f"shape {list(b.shape)}")
    batch, steps, width = b.shape
    real = (b.dtype,)
    for name, tensor, shapes, dtypes in (
        ("a", a, {(n, t, width) for n in (1, batch) for t in (1, steps)}, real),
        ("b", b, {(batch, steps, width)}, (torch.float32, torch.float64)),
        ("h0", h0, {(batch, width)}, real),
        ("lengths", lengths, {(batch,)}, (torch.int64,)),
        ("resets", resets, {(batch, steps)}, (torch.bool,)),
        ("fresh", fresh, {(batch, width)}, real),
    ):
        if tensor is not None and (tuple(tensor.shape) not in shapes or tensor.dtype not in dtypes):
            raise ShapeError(
                "running a linear recurrence",
                expected=f"{name} of shape {' or '.join(str(list(s)) for s in sorted(shapes))} in {dtypes[0]}",
                got=f"shape {list(tensor.shape)} in {tensor.dtype}",
                hint="b is [B, T, H], a the same, h0 [B, H], all of one dtype",
            )
    if paired and width % 2:
        raise ShapeError(
            "running a complex linear recurrence", expected="an even last axis", got=f"shape {list(b.shape)}"
        )


@cache
def _kernels() -> tuple[Callable[..., Any], dict[str, int], Callable[[int, int, int], None]]:
    """What compiles a pass, where its arguments stand, and what runs it; LLVM is loaded now."""
    from tidegate.compile.llvm import threads
    from tidegate.compile.llvm.recurrence import FIELDS, compiled

    return compiled, {name: place for place, name in enumerate(FIELDS)}, threads.run


class _Task(NamedTuple):
    """What both passes share: sizes, the rows' ends and resets, and how time is cut."""

    like: Tensor
    lengths: Tensor | None
    resets: Tensor | None
    fresh: Tensor | None
    is_complex: bool
    chunk_steps: int

    @property
    def chunks(self) -> int:
        return max(1, -(-self.like.shape[1] // self.chunk_steps))

    def run(self, name: str, results: tuple[str, ...], **tensors: Tensor) -> None:
        """Run a pass of `llvm.recurrence` over these tensors; `results` names those of [B, T, H] that it writes."""
        compiled, fields, run = _kernels()
        like = self.like
        rows, steps, width = like.shape
        channels = width // 2 if self.is_complex else width
        written = [tensors[result] for result in results]
        streaming = (
            like.nbytes >= STREAMING_BYTES
            and channels * like.itemsize % LINE_BYTES == 0
            and all(t.data_ptr() % LINE_BYTES == 0 for t in written)
        )
        code = compiled(name, "float" if like.dtype == torch.float32 else "double", self.is_complex, streaming)
        counter = ctypes.c_int64(0)
        block = (ctypes.c_int64 * len(fields))(
            *(ctypes.addressof(counter), 0, rows, steps, channels, self.chunk_steps, self.chunks, code.block, STRETCH),
            0 if self.lengths is None else self.lengths.data_ptr(),
            0 if self.resets is None else self.resets.data_ptr(),
        )
        if self.fresh is not None:
            tensors["fresh"] = self.fresh
        for tensor_name, tensor in tensors.items():
            place = fields[tensor_name]
            block[place] = tensor.data_ptr()
            strides, sizes = tensor.stride(), tensor.shape
            for axis in range(len(sizes) - 1):
                block[place + 1 + axis] = strides[axis] if sizes[axis] > 1 else 0
        run(code.address, ctypes.addressof(block), torch.get_num_threads() if like.numel() >= PARALLEL_NUMBERS else 1)

    def before_chunks(self, name: str, start: Tensor, **tensors: Tensor) -> Tensor:
        """Return the state before each chunk, [B, H] for one and [B, J, H] for more, from `start` [B, H].

        A chunk turns the state before it into `factor⊙state + local`: a recurrence again, over J chunks.
        """
        if self.chunks == 1:
            return start.contiguous().clone()
        rows, _, width = self.like.shape
        local = self.like.new_zeros(rows, self.chunks, width)
        factor = torch.zeros_like(local)
        factor[..., : width // 2 if self.is_complex else width] = 1
        self.run(name, (), state=local, factor=factor, **tensors)
        if name == "backward_chunk":
            local, factor = local.flip(1), factor.flip(1)
        whole = _Task(local, None, None, None, self.is_complex, self.chunks)
        states = torch.empty_like(local)
        whole.run(
            "forward", ("h",), a=factor, b=local, h=states, state=start.clone(memory_format=torch.contiguous_format)
        )
        before = torch.cat([start[:, None], states[:, :-1]], 1)
        return before.flip(1) if name == "backward_chunk" else before


def _task(like: Tensor, lengths: Tensor | None, resets: Tensor | None, fresh: Tensor | None, is_complex: bool) -> _Task:
    if resets is not None:
        resets = resets.contiguous()
        fresh = like.new_zeros(1, like.shape[2]) if fresh is None else _dense(fresh)
    lengths = None if lengths is None else lengths.contiguous()
    return _Task(like, lengths, resets, fresh, is_complex, chunk_steps(like.shape[0], like.shape[1], like.shape[2]))


def chunk_steps(rows: int, steps: int, width: int) -> int:
    """Return how many steps make a chunk that runs beside others; all where one pass over time is faster.

    Chunks go through time twice, measured at 1.5 to 1.9 times one pass: they win where a pass leaves three quarters
    of the machine's cores without a row or channels. It follows from the sizes and the machine, never from the
    number of threads in use, which may not change a bit.
    """
    tasks = max(rows * -(-width // TILE_CHANNELS), 1)
    chunks = CORES // tasks
    return -(-steps // chunks) if chunks >= 4 and steps >= CHUNK_STEPS * chunks else max(steps, 1)


def _dense(x: Tensor) -> Tensor:
    """Give the last axis unit stride."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _run_forward(
    a: Tensor,
    b: Tensor,
    h0: Tensor,
    lengths: Tensor | None,
    resets: Tensor | None,
    fresh: Tensor | None,
    is_complex: bool,
) -> tuple[Tensor, Tensor]:
    task = _task(b, lengths, resets, fresh, is_complex)
    a, b = _dense(a), _dense(b)
    state = task.before_chunks("forward_chunk", h0, a=a, b=b)
    h = pages.empty(b.shape, b)
    task.run("forward", ("h",), a=a, b=b, h=h, state=state)
    return h, state if task.chunks == 1 else state[:, -1].clone()


def _run_backward(
    a: Tensor, h: Tensor, h0: Tensor, dh: Tensor | None, dlast: Tensor | None,
    lengths: Tensor | None, resets: Tensor | None, fresh: Tensor | None, is_complex: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    task = _task(h, lengths, resets, fresh, is_complex)
    rows, _, width = h.shape
    a, h, h0 = _dense(a), _dense(h), _dense(h0)
    dh = h.new_zeros(1, 1, width) if dh is None else _dense(dh)
    start = h.new_zeros(rows, width) if dlast is None else dlast
    state = task.before_chunks("backward_chunk", start, a=a, dh=dh)
    dfresh = h.new_zeros((rows, task.chunks, width) if resets is not None else (0, 0, width))
    db = pages.empty(h.shape, h)
    stationary = a.shape[1] == 1
    da = h.new_zeros(rows, task.chunks, width) if stationary else pages.empty(h.shape, h)
    name, results = ("backward_sum", ("db",)) if stationary else ("backward", ("da", "db"))
    task.run(name, results, a=a, dh=dh, h=h, h0=h0, da=da, db=db, dfresh=dfresh, state=state)
    if stationary:
        da = da.sum(1, keepdim=True)
    if a.shape[0] < rows:
        da = da.sum(0, keepdim=True)
    return da, db, state if task.chunks == 1 else state[:, 0].clone(), dfresh.sum(1)


def _fake_forward(a: Tensor, b: Tensor, h0: Tensor, *_: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return b.new_empty(b.shape), h0.new_empty(h0.shape)


def _fake_backward(a: Tensor, h: Tensor, h0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    resets = rest[3]
    dfresh = h.new_empty(0 if resets is None else h0.shape[0], h0.shape[1])
    return a.new_empty(a.shape), h.new_empty(h.shape), h0.new_empty(h0.shape), dfresh


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            h, last = _forward(a, b, h0, *rest)
        *marks, ctx.is_complex = rest
        ctx.save_for_backward(a, h, h0, *marks)
        ctx.set_materialize_grads(False)
        return h, last

    @staticmethod
    def backward(ctx: Any, dh: Tensor | None, dlast: Tensor | None) -> tuple[Tensor | None, ...]:
        a, h, h0, lengths, resets, fresh = ctx.saved_tensors
        da, db, dh0, dfresh = _backward(a, h, h0, dh, dlast, lengths, resets, fresh, ctx.is_complex)
        return da, db, dh0, None, None, None if fresh is None or resets is None else dfresh, None


def _forward_autograd(*arguments: Any) -> Any:
    if torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in arguments):
        return _Recurrence.apply(*arguments)  # type: ignore[no-untyped-call]
    with torch._C._AutoDispatchBelowAutograd():
        return _forward(*arguments)


def _backward_autograd(*arguments: Any) -> Any:
    def run() -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            found: tuple[Tensor, ...] = _backward(*arguments)
        return found

    return without_derivative("a linear recurrence", run, [x for x in arguments if isinstance(x, Tensor)])


for _name, _run, _fake, _with_gradient in (
    ("linear_recurrence", _run_forward, _fake_forward, _forward_autograd),
    ("linear_recurrence_backward", _run_backward, _fake_backward, _backward_autograd),
):
    _library.impl(_name, _run, "CPU")  # type: ignore[no-untyped-call]
    _library.impl(_name, _with_gradient, "Autograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"tidegate::{_name}", _fake, lib=_library)
