"""A7: LiGRU and its stabilised form."""

from __future__ import annotations

import numpy as np
import torch

from .paper import Array, B, H, I, both, build, run, weights, σ


def test_ligru() -> None:
    cell = build("ligru")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        z = σ(both(w, "z", x, h))
        return [z * h + (1 - z) * np.maximum(both(w, "n", x, h), 0)]

    run(cell, equation)


def test_sligru() -> None:
    cell = build("sligru")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        def before(k: str) -> Array:
            u = h @ w.U[k].T
            normed = (u - u.mean(1, keepdims=True)) / np.sqrt(u.var(1, keepdims=True) + 1e-5)
            return x @ w.W[k].T + normed + w.b[k] + w.c[k]

        z = σ(before("z"))
        return [z * h + (1 - z) * np.maximum(before("n"), 0)]

    run(cell, equation)


def test_the_size_of_the_past_does_not_enter_sligrus_candidate() -> None:
    """Where U h is normalised, a state ten times as large moves gate and candidate as much as one of size one."""
    cell = build("sligru")
    x, h = torch.zeros(B, I, dtype=torch.float64), 1e3 * torch.randn(B, H, dtype=torch.float64)
    near = [cell._past("n", scale * h) for scale in (1.0, 10.0)]
    torch.testing.assert_close(near[0], near[1], rtol=0, atol=1e-6)
    assert cell(x, h)[0].isfinite().all()
