"""A15: lengths adapted row by row, as torch does it for one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Adapt

LENGTHS, TO = torch.tensor([9, 4, 0, 1, 9, 7]), torch.tensor([5, 7, 3, 4, 0, 7])
TORCHS = {
    "resample": lambda x, to: F.interpolate(x, to, mode="linear", align_corners=False),
    "pool": F.adaptive_avg_pool1d,
}


def data() -> Tensor:
    return torch.randn(6, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", TORCHS)
def test_every_row_is_what_torch_makes_of_it(how: str) -> None:
    x = data()
    y, new = Adapt(3, how)(x, TO, lengths=LENGTHS)
    assert torch.equal(new, TO)
    assert y.shape == (6, 7, 3)
    for row, (length, to) in enumerate(zip(LENGTHS.tolist(), TO.tolist(), strict=True)):
        assert (y[row, to:] == 0).all()
        if length and to:
            torch.testing.assert_close(y[row, :to], TORCHS[how](x[row : row + 1, :length].mT, to)[0].mT)
    assert (y[2] == 0).all()


@pytest.mark.parametrize("how", ["resample", "pool"])
def test_many_pairs_of_lengths(how: str) -> None:
    x = data()[:1]
    for length in range(1, 10):
        for to in range(1, 25):
            y, _ = Adapt(3, how)(x[:, :length], to)
            torch.testing.assert_close(y, TORCHS[how](x[:, :length].mT, to).mT)


@pytest.mark.parametrize("how", ["resample", "pool", "attend"])
def test_padding_changes_nothing(how: str) -> None:
    torch.manual_seed(0)
    adapt = Adapt(3, how).double()
    results = []
    for filled in (0.0, float("nan")):
        x = data()
        for row, length in enumerate(LENGTHS):
            x[row, length:] = filled
        x.requires_grad_()
        y, _ = adapt(x, TO, lengths=LENGTHS)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *adapt.parameters()])])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results, strict=True))
    y, gradient = results[0][0], results[0][1]
    assert (y[2] == 0).all()
    assert (y[3, :4] != 0).any()
    assert (gradient[1, 4:] == 0).all()
    alone, _ = adapt(data()[1:2, :4], 7)
    torch.testing.assert_close(y[1], alone[0])


def test_attending_can_learn_to_turn_a_sequence_around() -> None:
    torch.manual_seed(0)
    adapt = Adapt(1, "attend")
    optimizer = torch.optim.Adam(adapt.parameters(), lr=0.02)
    for _ in range(300):
        x = torch.randn(32, 4, 1)
        loss = (adapt(x, 4)[0] - x.flip(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ConfigError, match=r"one of \['resample', 'pool', 'attend'\]; got 'stretch'"):
        Adapt(3, "stretch")
    with pytest.raises(ShapeError, match=r"x of shape \[B, T, 3\]"):
        Adapt(3)(torch.zeros(2, 3), 4)
    with pytest.raises(ShapeError, match=r"new lengths of at least 0, one for all or \[2\]; got \[3\]"):
        Adapt(3)(torch.zeros(2, 4, 3), [3])
    with pytest.raises(ShapeError, match="new lengths of at least 0"):
        Adapt(3)(torch.zeros(2, 4, 3), -1)
