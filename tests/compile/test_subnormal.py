"""Numbers below the least normal one count as 0 in kernels, and nowhere else."""

from __future__ import annotations

import pytest
import torch

from tidegate import nn
from tidegate.cells import Cell, Elman
from tidegate.cells.linear import Linear


class Halving(Cell):
    """A state that decays by half a step, once it is small."""

    gates = ("n",)

    def step(self, x, h):
        (n,) = self.gate(x, h)
        return torch.tanh(0.5 * h + 0.0 * n)


class Decaying(Linear):
    """The same as a linear recurrence, for the scan."""

    gates = ("n",)

    def coefficients(self, x):
        return 0.0 * x + 0.5, 0.0 * x


def subnormal(values: torch.Tensor) -> torch.Tensor:
    return (values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)


def still_kept(dtype: torch.dtype) -> bool:
    """Whether this thread computes with subnormal numbers as it did before."""
    return bool(subnormal(torch.tensor([torch.finfo(dtype).tiny], dtype=dtype) * 0.5).all())


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 200), (torch.float64, 1200)])
@pytest.mark.parametrize(("cell", "backend"), [(Halving, "llvm"), (Decaying, "scan")])
@pytest.mark.parametrize("rows", [1, 40])
def test_states_that_decay_end_at_zero(cell, backend, rows, dtype, steps) -> None:
    layer = nn.Recurrent(cell(3, 3), backend=backend).to(dtype)
    x, h = torch.zeros(rows, steps, 3, dtype=dtype), torch.ones(1, rows, 3, dtype=dtype)
    y, last = layer(x, h)
    assert (last == 0).all()
    assert not subnormal(y).any()
    assert still_kept(dtype)
    layer.backend = "reference"
    loop, _ = layer(x, h)
    assert subnormal(loop).any()
    torch.testing.assert_close(y, loop, rtol=1e-5, atol=torch.finfo(dtype).tiny)


@pytest.mark.parametrize("rows", [1, 40])
def test_gradients_that_vanish_end_at_zero(rows) -> None:
    torch.manual_seed(0)
    layer = nn.Recurrent(Elman(2, 16), backend="llvm")
    with torch.no_grad():
        layer.cells[0].weight_hh.mul_(0.5)
    x = torch.randn(rows, 300, 2, requires_grad=True)
    layer(x)[0][:, -1].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, 0] == 0).all()
    assert (x.grad[:, -1] != 0).all()
    assert not subnormal(x.grad).any()
    assert still_kept(torch.float32)
