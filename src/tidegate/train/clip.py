"""Gradient clipping by norm (Pascanu 2013) and by value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import Tensor, nn


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float | None, value: float | None) -> Tensor | None:
    """Clip by value first, then by total norm; return the norm before either, None when neither is asked for."""
    if norm is None and value is None:
        return None
    weights = [p for p in parameters if p.grad is not None]
    before = nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None], foreach=True)
    if value is None:
        nn.utils.clip_grads_with_norm_(weights, cast(float, norm), before, foreach=True)
        return before
    nn.utils.clip_grad_value_(weights, value, foreach=True)
    if norm is not None:
        nn.utils.clip_grad_norm_(weights, norm, foreach=True)
    return before
