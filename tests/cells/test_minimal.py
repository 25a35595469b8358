"""A7: MGU, UGRNN, the intersection network, STAR."""

from __future__ import annotations

import numpy as np

from .paper import Array, alone, both, build, run, weights, σ


def test_mgu() -> None:
    cell = build("mgu")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        f = σ(both(w, "z", x, h))
        return [(1 - f) * h + f * np.tanh(both(w, "n", x, f * h))]

    run(cell, equation)


def test_ugrnn() -> None:
    cell = build("ugrnn")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        g = σ(both(w, "f", x, h))
        return [g * h + (1 - g) * np.tanh(both(w, "n", x, h))]

    run(cell, equation)


def test_intersection() -> None:
    cell = build("intersection")
    w = weights(cell)

    def equation(x: Array, y: Array, h: Array) -> list[Array]:
        y_in, h_in = np.maximum(both(w, "u", x, h), 0), np.tanh(both(w, "n", x, h))
        g_y, g_h = σ(both(w, "depth", x, h)), σ(both(w, "f", x, h))
        return [g_y * alone(w, "p", x) + (1 - g_y) * y_in, g_h * h + (1 - g_h) * h_in]

    run(cell, equation)


def test_star() -> None:
    cell = build("star")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        k = σ(both(w, "k", x, h))
        return [np.tanh((1 - k) * h + k * np.tanh(alone(w, "n", x)))]

    run(cell, equation)
    assert cell.weight_hh.shape == (6, 6)
