"""A7: NAS, MUT1, MUT2, MUT3."""

from __future__ import annotations

import numpy as np

from .paper import Array, alone, both, build, run, weights, σ


def test_nas() -> None:
    """As in TensorFlow's NASCell: eight nodes, then three levels of pairs."""
    cell = build("nas")
    w = weights(cell)

    def equation(x: Array, m: Array, c: Array) -> list[Array]:
        p = [x @ w.W[f"k{k}"].T + w.b[f"k{k}"] for k in range(8)]
        q = [m @ w.U[f"k{k}"].T + w.c[f"k{k}"] for k in range(8)]
        l1 = [
            σ(p[0] + q[0]),
            np.maximum(p[1] + q[1], 0),
            σ(p[2] + q[2]),
            np.maximum(p[3] * q[3], 0),
            np.tanh(p[4] + q[4]),
            σ(p[5] + q[5]),
            np.tanh(p[6] + q[6]),
            σ(p[7] + q[7]),
        ]
        l2 = [np.tanh(l1[0] * l1[1]), np.tanh(l1[2] + l1[3]), np.tanh(l1[4] * l1[5]), σ(l1[6] + l1[7])]
        c = np.tanh(l2[0] + c) * l2[1]
        return [np.tanh(c * np.tanh(l2[2] + l2[3])), c]

    run(cell, equation)


def test_mut1() -> None:
    cell = build("mut1")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        z, r = σ(alone(w, "z", x)), σ(both(w, "r", x, h))
        n = np.tanh((r * h) @ w.U["n"].T + np.tanh(alone(w, "n", x)) + w.c["n"])
        return [n * z + h * (1 - z)]

    run(cell, equation)


def test_mut2() -> None:
    cell = build("mut2")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        z, r = σ(both(w, "z", x, h)), σ(both(w, "r", x, h))
        return [np.tanh(both(w, "n", x, r * h)) * z + h * (1 - z)]

    run(cell, equation)


def test_mut3() -> None:
    cell = build("mut3")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        z, r = σ(both(w, "z", x, np.tanh(h))), σ(both(w, "r", x, h))
        return [np.tanh(both(w, "n", x, r * h)) * z + h * (1 - z)]

    run(cell, equation)
