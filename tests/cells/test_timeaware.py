"""A7: GRU-D, T-LSTM, CfC."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tidegate.cells import CELLS
from tidegate.compile.select import unroll
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Recurrent

from .paper import Array, B, H, I, T, both, build, run, weights, σ

DRAW = np.random.default_rng(1)
ELAPSED = DRAW.uniform(0.1, 3, (B, T, 1))
OBSERVED = (DRAW.uniform(size=(B, T, I)) > 0.5).astype(float)


def test_gru_d() -> None:
    cell = build("gru_d")
    w = weights(cell)
    V = dict(zip("rzn", np.split(w.P["weight_m"], 3), strict=True))

    def equation(x: Array, h: Array, last: Array, waited: Array, elapsed: Array, observed: Array) -> list[Array]:
        m, delta = observed, elapsed + waited
        γ_x = np.exp(-np.maximum(0, w.P["decay_x"] * delta + w.P["decay_x_bias"]))
        γ_h = np.exp(-np.maximum(0, delta @ w.P["decay_h"].T + w.P["decay_h_bias"]))
        x_hat = m * x + (1 - m) * (γ_x * last + (1 - γ_x) * 0.0)
        h = γ_h * h
        r, z = (σ(both(w, k, x_hat, h) + m @ V[k].T) for k in "rz")
        n = np.tanh(both(w, "n", x_hat, r * h) + m @ V["n"].T)
        return [(1 - z) * h + z * n, m * x + (1 - m) * last, (1 - m) * delta]

    run(cell, equation, elapsed=ELAPSED, observed=OBSERVED)


def test_gru_d_keeps_the_papers_time_since_each_input_was_seen() -> None:
    """Equation 2: δ_t is s_t − s_{t−1}, plus δ_{t−1} where the input was missing at t−1."""
    cell = build("gru_d")
    x = torch.randn(B, T, I, dtype=torch.float64)
    given = {"elapsed": torch.as_tensor(ELAPSED), "observed": torch.as_tensor(OBSERVED)}
    stamps, state, delta = np.cumsum(ELAPSED, 1), None, np.zeros((B, I))
    for t in range(T):
        gap = stamps[:, t] - (stamps[:, t - 1] if t else 0)
        delta = gap + (np.where(OBSERVED[:, t - 1] == 1, 0, delta) if t else 0)
        _, state = cell(x[:, t], state, **{name: value[:, t] for name, value in given.items()})
        np.testing.assert_allclose(state[2].numpy(), (1 - OBSERVED[:, t]) * delta, rtol=0, atol=1e-12)


def test_gru_d_does_not_look_at_what_was_not_observed() -> None:
    cell = build("gru_d")
    x = torch.randn(B, T, I, dtype=torch.float64)
    given = {"elapsed": torch.as_tensor(ELAPSED), "observed": torch.as_tensor(OBSERVED)}
    seen = []
    for content in (0.0, 1e9, float("nan")):
        filled = torch.where(given["observed"] > 0, x, content).requires_grad_()
        y, end = unroll(cell, filled, **given)
        grads = torch.autograd.grad(y.sum(), [filled, *cell.parameters()])
        seen.append([y, *end, *grads])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("discount", ["log", "inverse"])
def test_t_lstm(discount: str) -> None:
    cell = build("t_lstm", discount=discount)
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array, elapsed: Array) -> list[Array]:
        short = np.tanh(c @ w.P["weight_d"].T + w.P["bias_d"])
        g = 1 / np.log(np.e + elapsed) if discount == "log" else 1 / elapsed
        star = (c - short) + short * g
        i, f, o = (σ(both(w, k, x, h)) for k in "ifo")
        c = f * star + i * np.tanh(both(w, "g", x, h))
        return [o * np.tanh(c), c]

    run(cell, equation, elapsed=ELAPSED)


def test_t_lstm_without_a_wait_is_the_lstm() -> None:
    cell, plain = build("t_lstm"), build("lstm")
    cell.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(B, I, dtype=torch.float64)
    state = tuple(torch.randn(B, H, dtype=torch.float64) for _ in "hc")
    y, _ = cell(x, state, elapsed=torch.zeros(B, 1, dtype=torch.float64))
    torch.testing.assert_close(y, plain(x, state)[0], rtol=0, atol=1e-14)


def test_cfc() -> None:
    cell = build("cfc")
    w = weights(cell)

    def equation(x: Array, h: Array, elapsed: Array) -> list[Array]:
        ff1, ff2 = np.tanh(both(w, "g", x, h)), np.tanh(both(w, "n", x, h))
        interp = σ(both(w, "a", x, h) * elapsed + both(w, "b", x, h))
        return [ff1 * (1 - interp) + interp * ff2]

    run(cell, equation, elapsed=ELAPSED)


def test_cfc_is_the_papers_closed_form_where_the_offset_is_0() -> None:
    cell = build("cfc")
    w = weights(cell)
    for name in ("W", "U", "b", "c"):
        getattr(w, name)["b"][:] = 0  # views of the cell's own weights

    def equation(x: Array, h: Array, elapsed: Array) -> list[Array]:
        f, g, other = both(w, "a", x, h), np.tanh(both(w, "g", x, h)), np.tanh(both(w, "n", x, h))
        return [σ(-f * elapsed) * g + (1 - σ(-f * elapsed)) * other]

    run(cell, equation, elapsed=ELAPSED)


def test_what_they_read_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"the inputs \['elapsed'\] beside x"):
        unroll(build("cfc"), torch.randn(B, T, I))
    with pytest.raises(ShapeError, match="observed to be 4 wide, as x is; got 1"):
        unroll(CELLS["gru_d"](I, H), torch.randn(B, T, I), elapsed=torch.ones(B, T), observed=torch.ones(B, T))


@pytest.mark.parametrize("name", ["t_lstm", "cfc"])
def test_every_layer_reads_the_same_times(name: str) -> None:
    layer = Recurrent(CELLS[name](I, H), layers=2, bidirectional=True)
    x, elapsed = torch.randn(B, T, I), torch.rand(B, T) + 0.1
    y, _ = layer(x, elapsed=elapsed, lengths=[T, 2, 0])
    assert y.shape == (B, T, 2 * H)
    assert not torch.allclose(y, layer(x, elapsed=2 * elapsed, lengths=[T, 2, 0])[0])
    forward = Recurrent(CELLS[name](I, H), layers=2)
    whole, _ = forward(x, elapsed=elapsed)
    state = None
    for t in range(T):
        y_t, state = forward.step(x[:, t], state, elapsed=elapsed[:, t, None])
        torch.testing.assert_close(y_t, whole[:, t])
