"""A7: AntisymmetricRNN, plain and gated."""

from __future__ import annotations

import numpy as np
import torch

from .paper import Array, H, I, build, run, weights, σ


def matrix(w, gamma: float) -> Array:  # type: ignore[no-untyped-def]
    return w.U["n"] - w.U["n"].T - gamma * np.eye(H)


def test_antisymmetric() -> None:
    cell = build("antisymmetric", epsilon=0.3, gamma=0.2)
    w = weights(cell)
    A, b = matrix(w, 0.2), w.b["n"] + w.c["n"]
    run(cell, lambda x, h: [h + 0.3 * np.tanh(h @ A.T + x @ w.W["n"].T + b)])


def test_gated() -> None:
    cell = build("antisymmetric_gated", epsilon=0.3, gamma=0.2)
    w = weights(cell)
    A = matrix(w, 0.2)

    def equation(x: Array, h: Array) -> list[Array]:
        z = σ(h @ A.T + x @ w.W["z"].T + w.b["z"] + w.c["n"])
        return [h + 0.3 * z * np.tanh(h @ A.T + x @ w.W["n"].T + w.b["n"] + w.c["n"])]

    run(cell, equation)


def test_its_flow_neither_grows_nor_shrinks_but_for_the_damping() -> None:
    """At rest, the eigenvalues of (Jacobian − 1)/ε are imaginary numbers shifted by −γ."""
    cell = build("antisymmetric", epsilon=0.05, gamma=0.01, bias=False)
    x, h = torch.zeros(1, I, dtype=torch.float64), torch.zeros(H, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda h: cell(x, h[None])[0][0], h)
    flow = (jacobian - torch.eye(H, dtype=torch.float64)) / 0.05
    eigenvalues = torch.linalg.eigvals(flow)
    torch.testing.assert_close(eigenvalues.real, torch.full((H,), -0.01, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(eigenvalues.imag.abs().max()) > 0.1
