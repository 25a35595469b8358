"""A11: norms see real steps only."""

from __future__ import annotations

import pytest
import torch

from tidegate.errors import ShapeError
from tidegate.nn.norms import BatchNorm, LayerNorm

X = torch.randn(3, 5, 4) * 3 + 1
LENGTHS = torch.tensor([5, 0, 2])
REAL = torch.arange(5) < LENGTHS[:, None]


def test_a11_batch_norm_is_torchs_over_the_real_steps() -> None:
    ours, torchs = BatchNorm(4), torch.nn.BatchNorm1d(4)
    y = ours(X.masked_fill(~REAL[..., None], float("nan")), LENGTHS)
    torch.testing.assert_close(y[REAL], torchs(X[REAL]))
    assert not y[~REAL].any()
    torch.testing.assert_close(ours.running_mean, torchs.running_mean)
    torch.testing.assert_close(ours.running_var, torchs.running_var)
    torch.testing.assert_close(ours(X), torchs(X.reshape(-1, 4)).reshape(X.shape))


def test_a11_layer_norm_is_torchs_step_by_step() -> None:
    ours, torchs = LayerNorm(4), torch.nn.LayerNorm(4)
    torch.nn.init.ones_(ours.bias)
    y = ours(X, LENGTHS)
    torch.testing.assert_close(y[REAL], torchs(X)[REAL] + 1)
    assert not y[~REAL].any()


def test_batch_norm_of_too_little() -> None:
    norm = BatchNorm(4)
    before = norm.running_mean.clone()
    assert not norm(X, torch.zeros(3, dtype=torch.int64)).any()
    assert torch.equal(norm.running_mean, before)
    with pytest.raises(ShapeError, match="at least two real steps in a batch; got one"):
        norm(X[:1, :1])
    assert norm.eval()(X[:1, :1]).shape == (1, 1, 4)
