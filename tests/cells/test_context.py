"""A7: SCRN."""

from __future__ import annotations

import numpy as np
import torch

from tidegate.nn import Recurrent

from .paper import Array, H, I, alone, build, run, weights, σ


def test_scrn() -> None:
    cell = build("scrn", alpha=0.9)
    w = weights(cell)
    R, P = w.U["h"][:, :H], w.U["h"][:, H:]

    def equation(x: Array, state: Array) -> list[Array]:
        s = 0.1 * alone(w, "s", x) + 0.9 * state[:, H:]
        h = σ(s @ P.T + alone(w, "h", x) + w.c["h"] + state[:, :H] @ R.T)
        return [np.concatenate([h, s], 1)]

    run(cell, equation)


def test_the_layer_above_reads_both() -> None:
    layer = Recurrent(build("scrn"), layers=2)
    y, state = layer(torch.randn(2, 3, I, dtype=torch.float64))
    assert y.shape == (2, 3, 2 * H)
    assert state.shape == (2, 2, 2 * H)
    assert layer.cells[1].input_size == 2 * H
