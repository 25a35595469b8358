"""What the peers' loops are written from: one equation, read by PyTorch and by JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

Array: TypeAlias = Any
"""A tensor of the library that runs the loop."""

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Ops:
    """A library's own functions under one spelling; nothing is added to what its user would call.

    `linear(x, W, b)` is `x Wᵀ + b`; `addmm(x, h, U)` is `x + h U`; `split(v, n)` cuts the last axis in n;
    `lerp(a, b, w)` is `a + w⊙(b − a)`; `layer_norm(v, gain, bias)` is over the last axis, bias may be None.
    """

    sigmoid: Callable[[Array], Array]
    tanh: Callable[[Array], Array]
    linear: Callable[[Array, Array, Array], Array]
    addmm: Callable[[Array, Array, Array], Array]
    split: Callable[[Array, int], tuple[Array, ...]]
    lerp: Callable[[Array, Array, Array | float], Array]
    where: Callable[[Array, Array, Array], Array]
    layer_norm: Callable[[Array, Array, Array | None], Array]


def _layer_norm(v: Array, gain: Array, bias: Array | None) -> Array:
    return F.layer_norm(v, gain.shape, gain, bias, LAYER_NORM_EPS)


def _split(v: Array, parts: int) -> tuple[Array, ...]:
    return v.chunk(parts, -1)


TORCH = Ops(torch.sigmoid, torch.tanh, F.linear, torch.addmm, _split, torch.lerp, torch.where, _layer_norm)
