"""The linear recurrence as one torch operator, with its derivative as another; both run compiled code on the CPU."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from tidegate.compile.llvm import threads
from tidegate.errors import BackendError, ShapeError

STREAMING_BYTES = 8 << 20
BLOCK = 64
STRETCH = 64


def _launch(name: str, like: Tensor, is_complex: bool, streaming: bool, **fields: int) -> None:
    code = _compiled(name, like.dtype, is_complex, streaming)
    counter = ctypes.c_int64(0)
    fields["next"] = ctypes.addressof(counter)
    block = code.block(*[fields.get(n, 0) for n in code.fields])
    threads.run(code.address, ctypes.addressof(block), torch.get_num_threads())


class _Code:
    def __init__(self, name, dtype, is_complex, streaming):
        from tidegate.compile.llvm import recurrence as R
        from tidegate.compile.llvm.engine import compile_module
        from tidegate.compile.llvm.host import host

        real = "float" if dtype == torch.float32 else "double"
        kind = R.Kind(real, host().lanes(real), is_complex, streaming)
        self.compiled = compile_module(R.module_text(kind, name), [name])
        self.address = self.compiled.addresses[name]
        self.fields = R.FIELDS
        self.block = ctypes.c_int64 * len(R.FIELDS)


@cache
def _compiled(*k):
    return _Code(*k)


def strides(name, x):
    return {
        name: x.data_ptr(),
        name + "_row": 0 if x.shape[0] == 1 else x.stride(0),
        name + "_step": 0 if x.shape[1] == 1 else x.stride(1),
    }


def forward(a, b, h0, block=BLOCK, stretch=STRETCH, streaming=None):
    B, T, W = b.shape
    h = torch.empty_like(b)
    state = h0.clone()
    if streaming is None:
        streaming = h.nbytes >= STREAMING_BYTES
    _launch(
        "forward",
        b,
        False,
        streaming,
        rows=B,
        steps=T,
        channels=W,
        chunk_steps=T,
        chunks=1,
        block=block,
        stretch=stretch,
        state=state.data_ptr(),
        **strides("a", a),
        **strides("b", b),
        **strides("h", h),
    )
    return h, state


def backward(a, h, h0, dh, dlast, block=BLOCK, stretch=STRETCH, streaming=None):
    B, T, W = h.shape
    da = torch.empty_like(h)
    db = torch.empty_like(h)
    state = dlast.clone()
    if streaming is None:
        streaming = h.nbytes >= STREAMING_BYTES
    _launch(
        "backward",
        h,
        False,
        streaming,
        rows=B,
        steps=T,
        channels=W,
        chunk_steps=T,
        chunks=1,
        block=block,
        stretch=stretch,
        state=state.data_ptr(),
        h0=h0.data_ptr(),
        h0_row=h0.stride(0),
        **strides("a", a),
        **strides("dh", dh),
        **strides("h", h),
        **strides("da", da),
        **strides("db", db),
    )
    return da, db, state
