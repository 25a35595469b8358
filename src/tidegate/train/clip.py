"""Gradient clipping by norm (Pascanu 2013) and by value."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def clip_gradients(parameters: Iterable[nn.Parameter], norm: float | None, value: float | None) -> Tensor | None:
    """Clip by value first, then by total norm; return the norm before it was scaled, None without `norm`."""
    weights = list(parameters)
    if value is not None:
        nn.utils.clip_grad_value_(weights, value, foreach=True)
    return None if norm is None else torch.nn.utils.clip_grad_norm_(weights, norm, foreach=True)
