"""Clipping equals torch's, and reports the norm that was there before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tidegate.train.clip import MOST_NORMS, clip_gradients
from tidegate.train.settings import TrainSettings


def weights() -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.zeros(3, 5)), nn.Parameter(torch.zeros(7)), nn.Parameter(torch.zeros(2))]
    for weight in made[:2]:
        weight.grad = torch.randn_like(weight)
    return made


def gradients(of: list[nn.Parameter]) -> list[Tensor | None]:
    return [weight.grad for weight in of]


@pytest.mark.parametrize(("norm", "value"), [(0.5, None), (1e3, None), (None, 0.3), (0.5, 0.3), (None, None)])
def test_clipping_equals_torch(norm: float | None, value: float | None) -> None:
    ours, theirs = weights(), weights()
    before = torch.cat([g.flatten() for g in gradients(theirs) if g is not None]).norm()
    if value is not None:
        nn.utils.clip_grad_value_(theirs, value)
    if norm is not None:
        nn.utils.clip_grad_norm_(theirs, norm)
    told = clip_gradients(iter(ours), TrainSettings(clip_norm=norm, clip_value=value), [])
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other)
    if norm is None and value is None:
        assert told is None
    else:
        torch.testing.assert_close(told, before)


def test_adaptive_clipping_is_the_papers() -> None:
    """Brock et al. 2021, equation 3: unit by unit; weights of zero count as 1e-3."""
    ours = weights()
    with torch.no_grad():
        ours[0][1:] = torch.randn(2, 5)
        ours[1].copy_(torch.randn(7) * 100)
    before = [None if g is None else g.clone() for g in gradients(ours)]
    clip_gradients(ours, TrainSettings(clip_adaptive=0.1), [])
    for weight, old in zip(ours, before, strict=True):
        if old is None:
            assert weight.grad is None
            continue
        pairs = zip(weight, old, strict=True) if weight.dim() == 2 else [(weight, old)]
        units = []
        for w, g in pairs:
            most = 0.1 * max(float(w.detach().norm()), 1e-3)
            units.append(g * most / g.norm() if g.norm() > most else g)
        torch.testing.assert_close(weight.grad, torch.stack(units) if weight.dim() == 2 else units[0])


def test_quantile_clipping_follows_the_norms_seen() -> None:
    """Seetharaman et al. 2020, algorithm 1."""
    norms: list[float] = []
    for factor in (1.0, 3.0, 0.5, 10.0, 2.0):
        ours = weights()
        for weight in ours[:2]:
            assert weight.grad is not None
            weight.grad.mul_(factor)
        told = clip_gradients(ours, TrainSettings(clip_quantile=0.25), norms)
        assert told is not None
        assert norms[-1] == pytest.approx(float(told))
        limit = float(np.quantile(norms, 0.25))
        after = torch.cat([g.flatten() for g in gradients(ours) if g is not None]).norm()
        assert float(after) == pytest.approx(min(limit, float(told)), rel=1e-4)
    long = [1.0] * MOST_NORMS
    clip_gradients(ours, TrainSettings(clip_quantile=0.5), long)
    assert len(long) == MOST_NORMS


def test_a_norm_that_is_no_number_is_not_remembered() -> None:
    ours, norms = weights(), [1.0]
    assert ours[0].grad is not None
    ours[0].grad[0, 0] = float("nan")
    clip_gradients(ours, TrainSettings(clip_quantile=0.5), norms)
    assert norms == [1.0]
