"""The peer in JAX: `jax.lax.scan`, jitted."""

from __future__ import annotations

import importlib.util
import itertools
import os
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from torch import Tensor

from tidegate.bench.cases import Case, Mask
from tidegate.bench.ops import LAYER_NORM_EPS, Array, Ops
from tidegate.bench.peers import Gradients, Masks

NAME = "jax scan"


def start(threads: int) -> str | None:
    """Import JAX on `threads` threads of the CPU; return None, or why it is not timed.

    XLA sizes its pool when the process first uses it, from the environment (`NPROC`): it cannot be changed after.
    """
    if importlib.util.find_spec("jax") is None:
        return 'jax is not installed, so jax.lax.scan is not timed: pip install "tidegate[bench]"'
    if "jax" in sys.modules and os.environ.get("NPROC") != str(threads):
        return f"jax was imported before its threads could be set to {threads}, so jax.lax.scan is not timed"
    os.environ |= {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}
    if threads == 1:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
    _ops()
    return None


class JaxScan:
    """A case as `jax.lax.scan` over its steps: what is jitted holds the whole call, gradients and noise included."""

    name = NAME

    def __init__(self, case: Case, weights: dict[str, Tensor], x: Tensor, dy: Tensor) -> None:
        import jax

        to = jax.numpy.asarray
        self._weights = {name: to(w.detach().numpy()) for name, w in weights.items()}
        self._x, self._dy = to(x.detach().numpy()), to(dy.numpy())
        self._seed = itertools.count()
        run = partial(_run, _ops(), case)
        self._forward = jax.jit(lambda w, x: run(w, x, None))

        def train(w: Array, x: Array, dy: Array, masks: Array) -> Array:
            y, pull = jax.vjp(lambda w, x: run(w, x, masks), w, x)
            return y, pull(dy)

        self._train = jax.jit(train)
        self._draws = bool(case.masks)
        self._train_drawing = jax.jit(lambda w, x, dy, seed: train(w, x, dy, _draw(case.masks, x, seed)))

    def timed(self, mode: str) -> Callable[[], object]:
        import jax

        w, x, dy = self._weights, self._x, self._dy
        if mode == "forward":
            return lambda: jax.block_until_ready(self._forward(w, x))
        if self._draws:
            return lambda: jax.block_until_ready(self._train_drawing(w, x, dy, np.uint32(next(self._seed))))
        return lambda: jax.block_until_ready(self._train(w, x, dy, None))

    def outputs(self) -> Tensor:
        return _tensor(self._forward(self._weights, self._x))

    def gradients(self, masks: Masks | None) -> tuple[Tensor, Gradients]:
        given = None if masks is None else {name: m.numpy() for name, m in masks.items()}
        y, (weights, x) = self._train(self._weights, self._x, self._dy, given)
        return _tensor(y), {"x": _tensor(x), **{name: _tensor(g) for name, g in weights.items()}}


def _tensor(value: Array) -> Tensor:
    import torch

    return torch.from_numpy(np.array(value))


@cache
def _ops() -> Ops:
    import jax
    from jax import numpy as jnp

    def layer_norm(v: Array, gain: Array, bias: Array | None) -> Array:
        centred = v - v.mean(-1, keepdims=True)
        normed = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYER_NORM_EPS) * gain
        return normed if bias is None else normed + bias

    return Ops(
        sigmoid=jax.nn.sigmoid,
        tanh=jnp.tanh,
        linear=lambda x, W, b: x @ W.T + b,
        addmm=lambda x, h, U: x + h @ U,
        split=lambda v, parts: tuple(jnp.split(v, parts, -1)),
        lerp=lambda a, b, w: a + w * (b - a),
        where=jnp.where,
        layer_norm=layer_norm,
    )


def _run(f: Ops, case: Case, weights: dict[str, Array], x: Array, masks: dict[str, Array] | None) -> Array:
    """Return the outputs [B, T, H]."""
    import jax
    from jax import numpy as jnp

    read = {**weights, **(masks or {})}
    constants = case.constants(read)
    steps = tuple(each.swapaxes(0, 1) for each in case.inputs(f, read, x))

    def step(states: tuple[Array, ...], x_t: tuple[Array, ...]) -> tuple[Any, Array]:
        new = case.step(f, constants, x_t, states)
        return new, new[0]

    zeros = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
    return jax.lax.scan(step, (zeros,) * len(case.kind.states), steps)[1].swapaxes(0, 1)


def _draw(masks: tuple[Mask, ...], x: Array, seed: Array) -> dict[str, Array]:
    import jax

    def one(mask: Mask, key: Array) -> Array:
        shape = x.shape if mask.each_step else (x.shape[0], x.shape[2])
        if mask.keeps:
            return jax.random.bernoulli(key, mask.rate, shape)
        return jax.random.bernoulli(key, 1 - mask.rate, shape).astype(x.dtype) / (1 - mask.rate)

    keys = jax.random.split(jax.random.key(seed), len(masks))
    return {mask.name: one(mask, key) for mask, key in zip(masks, keys, strict=True)}
