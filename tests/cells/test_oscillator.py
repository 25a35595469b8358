"""A7: coRNN, UnICORNN, LEM."""

from __future__ import annotations

import numpy as np
import torch

from .paper import Array, H, I, alone, both, build, run, weights, σ


def test_cornn() -> None:
    dt, gamma, epsilon = 0.1, 0.7, 1.3
    cell = build("cornn", dt=dt, gamma=gamma, epsilon=epsilon)
    w = weights(cell)

    def equation(x: Array, y: Array, z: Array) -> list[Array]:
        pre = both(w, "n", x, y) + z @ w.P["weight_v"].T
        z = z + dt * np.tanh(pre) - dt * gamma * y - dt * epsilon * z
        return [y + dt * z, z]

    run(cell, equation)


def test_an_undriven_cornn_loses_energy() -> None:
    """Without the force it is a damped oscillator: γ y² + z² falls."""
    cell = build("cornn", bias=False)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    state, x = tuple(torch.ones(1, H, dtype=torch.float64) for _ in "hv"), torch.zeros(1, I, dtype=torch.float64)
    energies = []
    for _ in range(200):
        _, state = cell(x, state)
        h, v = state
        energies.append(float((2.7 * h**2 + v**2).sum()))
    assert energies[-1] < 1e-2 * energies[0]
    assert max(energies[100:]) < min(energies[:20])


def test_unicornn() -> None:
    dt, alpha = 0.2, 0.9
    cell = build("unicornn", dt=dt, alpha=alpha)
    w = weights(cell)

    def equation(x: Array, y: Array, z: Array) -> list[Array]:
        pace = dt * σ(w.P["time_scale"])
        z = z - pace * (np.tanh(w.P["weight_u"] * y + alone(w, "n", x)) + alpha * y)
        return [y + pace * z, z]

    run(cell, equation)


def test_unicornn_loses_no_volume() -> None:
    """Its step is symplectic: the Jacobian by the state has determinant 1."""
    cell = build("unicornn", dt=0.5)
    x, state = torch.randn(1, I, dtype=torch.float64), torch.randn(2 * H, dtype=torch.float64)

    def step(s: torch.Tensor) -> torch.Tensor:
        return torch.cat(cell(x, (s[None, :H], s[None, H:]))[1], 1)[0]

    jacobian = torch.autograd.functional.jacobian(step, state)
    torch.testing.assert_close(jacobian.det(), torch.tensor(1.0, dtype=torch.float64), rtol=0, atol=1e-12)


def test_lem() -> None:
    cell = build("lem", dt=0.5)
    w = weights(cell)

    def equation(x: Array, y: Array, z: Array) -> list[Array]:
        slow, fast = 0.5 * σ(both(w, "slow", x, y)), 0.5 * σ(both(w, "fast", x, y))
        z = (1 - slow) * z + slow * np.tanh(both(w, "z", x, y))
        return [(1 - fast) * y + fast * np.tanh(both(w, "h", x, z)), z]

    run(cell, equation)
