"""Clipping equals torch's, and reports the norm that was there before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tidegate.train.clip import clip_gradients


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
    told = clip_gradients(iter(ours), norm, value)
    for mine, other in zip(gradients(ours), gradients(theirs), strict=True):
        assert (mine is None) == (other is None)
        if mine is not None:
            torch.testing.assert_close(mine, other)
    if norm is None and value is None:
        assert told is None
    else:
        torch.testing.assert_close(told, before)
