"""A7: sLSTM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .paper import Array, B, H, I, both, build, run, weights, σ


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_slstm_stabilised(forget: str) -> None:
    cell = build("slstm", forget=forget)
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array, n: Array, m: Array) -> list[Array]:
        i, f, z, o = (both(w, k, x, h) for k in "ifzo")
        log_f = f if forget == "exp" else np.log(σ(f))
        new = np.maximum(log_f + m, i)
        i, f = np.exp(i - new), np.exp(log_f + m - new)
        c, n = f * c + i * np.tanh(z), f * n + i
        return [σ(o) * (c / n), c, n, new]

    drawn = [np.random.default_rng(0).normal(size=(B, H)) for _ in range(4)]
    run(cell, equation, start=[drawn[0], drawn[1], np.abs(drawn[2]) + 0.5, drawn[3]])


@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_the_stabiliser_changes_no_output(forget: str) -> None:
    """From zero states, the equations without m give the same h."""
    cell = build("slstm", forget=forget)
    w = weights(cell)
    h, c, n = np.zeros((B, H)), np.zeros((B, H)), np.zeros((B, H))
    state = None
    for _ in range(8):
        x = torch.randn(B, I, dtype=torch.float64)
        y, state = cell(x, state)
        i, f, z, o = (both(w, k, x.numpy(), h) for k in "ifzo")
        i, f = np.exp(i), np.exp(f) if forget == "exp" else σ(f)
        c, n = f * c + i * np.tanh(z), f * n + i
        h = σ(o) * c / n
        np.testing.assert_allclose(y.detach().numpy(), h, rtol=0, atol=1e-12)


def test_gates_that_would_overflow_do_not() -> None:
    cell = build("slstm", forget="exp").float()
    with torch.no_grad():
        cell.weight_ih.mul_(1000)
    state = None
    for x in torch.randn(50, B, I):
        y, state = cell(x, state)
        assert all(s.isfinite().all() for s in state)
        assert float(y.detach().abs().max()) <= 1
