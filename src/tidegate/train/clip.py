"""Gradient clipping: by value, unit by unit, by norm, and by the norms that were seen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from tidegate.train.settings import TrainSettings

EPSILON = 1e-3
"""What a unit's weights count for at least in adaptive clipping: new ones may be zero."""

MOST_NORMS = 10_000


def clip_gradients(weights: Iterable[nn.Parameter], settings: TrainSettings, norms: list[float]) -> Tensor | None:
    """Clip by value, then unit by unit, then by total norm; return the norm before, None when nothing is asked for.

    - `clip_value`: every number to ±that.
    - `clip_adaptive` λ: see `clip_units`.
    - `clip_norm`: the norm of all to that (Pascanu, Mikolov & Bengio 2013, algorithm 1).
    - `clip_quantile` p: the norm of all to the p-quantile of the norms seen so far, this one included (AutoClip;
      Seetharaman et al. 2020, 2007.14469, algorithm 1). `norms` are those, in order, and gets this one. Deviation:
      the newest 10,000 count.
    """
    value, units, norm, quantile = (
        settings.clip_value,
        settings.clip_adaptive,
        settings.clip_norm,
        settings.clip_quantile,
    )
    if value is None and units is None and norm is None and quantile is None:
        return None
    given = [p for p in weights if p.grad is not None]
    before = _norm(given)
    if value is not None:
        nn.utils.clip_grad_value_(given, value, foreach=True)
    if units is not None:
        clip_units(given, units)
    now = before if value is None and units is None else _norm(given)
    if quantile is not None:
        limit = _learned(norms, float(now), quantile)
        norm = limit if norm is None else min(norm, limit)
    if norm is not None:
        nn.utils.clip_grads_with_norm_(given, norm, now, foreach=True)
    return before


@torch.no_grad()
def clip_units(weights: Iterable[nn.Parameter], factor: float) -> None:
    """Clip each unit's gradient to `factor` times the norm of its weights, at least 1e-3.

    A unit is a row of a matrix; what has one axis is one unit. Source: adaptive gradient clipping, Brock et al. 2021
    (2102.06171), equation 3. Deviation: the last layer is clipped, too.
    """
    for weight in weights:
        gradient = cast(Tensor, weight.grad)
        axes = tuple(range(1, weight.dim())) or (0,)
        most = factor * torch.linalg.vector_norm(weight, dim=axes, keepdim=True).clamp(min=EPSILON)
        gradient.mul_((most / torch.linalg.vector_norm(gradient, dim=axes, keepdim=True).clamp(min=1e-12)).clamp(max=1))


def _norm(weights: list[nn.Parameter]) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None], foreach=True)


def _learned(norms: list[float], now: float, quantile: float) -> float:
    """Keep a norm, unless it is no number, and return the quantile of those kept."""
    if math.isfinite(now):
        norms.append(now)
        del norms[:-MOST_NORMS]
    return float(torch.tensor(norms or [now], dtype=torch.float64).quantile(quantile))
