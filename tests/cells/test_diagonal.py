"""A8: LRU and RG-LRU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tidegate.cells import CELLS
from tidegate.errors import ConfigError

from .paper import Array, H, I, alone, build, run, weights, σ


def test_lru() -> None:
    cell = build("lru")
    w = weights(cell)
    λ = np.exp(-np.exp(w.P["nu_log"]) + 1j * np.exp(w.P["theta_log"]))
    γ = np.exp(w.P["gamma_log"])
    C = w.P["weight_ho"][:, :H] - 1j * w.P["weight_ho"][:, H:]

    def equation(u: Array, h: Array, c: Array) -> list[Array]:
        state = λ * (c[:, :H] + 1j * c[:, H:]) + γ * (alone(w, "re", u) + 1j * alone(w, "im", u))
        y = (state @ C.T).real + alone(w, "d", u)
        return [y, np.concatenate([state.real, state.imag], 1)]

    run(cell, equation)


def test_lru_begins_in_its_ring_with_states_of_unit_size() -> None:
    torch.manual_seed(0)
    cell = CELLS["lru"](I, 2000, r_min=0.6, r_max=0.9, max_phase=1.0, dtype=torch.float64)
    for _ in range(2):
        P = {name: p.detach() for name, p in cell.named_parameters()}
        size, phase = (-P["nu_log"].exp()).exp(), P["theta_log"].exp()
        assert 0.6 <= float(size.min()) < 0.61
        assert 0.89 < float(size.max()) <= 0.9
        # Uniform on the ring's area: |λ|² is uniform.
        assert abs(float(size.square().mean()) - (0.36 + 0.81) / 2) < 0.005
        assert 0 < float(phase.min()) < 0.01
        assert 0.99 < float(phase.max()) <= 1
        torch.testing.assert_close(P["gamma_log"].exp(), (1 - size.square()).sqrt(), rtol=0, atol=1e-12)
        cell.reset_parameters()


def test_lru_refuses_a_ring_that_is_none() -> None:
    with pytest.raises(ConfigError, match="0 ≤ r_min < r_max ≤ 1"):
        CELLS["lru"](2, 3, r_max=1.5)


def test_rglru() -> None:
    cell = build("rglru")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        r, i = σ(alone(w, "r", x)), σ(alone(w, "i", x))
        a = σ(w.P["weight_a"]) ** (8 * r)
        return [a * h + np.sqrt(1 - a**2) * (i * alone(w, "n", x))]

    run(cell, equation)


def test_rglru_begins_slow_and_loses_no_digits_close_to_1() -> None:
    cell = build("rglru")
    kept = σ(weights(cell).P["weight_a"]) ** 8
    assert 0.9 <= kept.min() < kept.max() <= 0.999
    with torch.no_grad():
        cell.get_parameter("weight_a").fill_(14.0)
    single = CELLS["rglru"](I, H)
    single.load_state_dict(cell.state_dict())
    x = torch.randn(5, I, dtype=torch.float64)
    _, exact = cell.coefficients(cell.project(x))
    _, rounded = single.coefficients(single.project(x.float()))
    torch.testing.assert_close(rounded.double(), exact, rtol=2e-6, atol=0)
