"""A7: RHN."""

from __future__ import annotations

import numpy as np
import pytest

from tidegate.cells import CELLS
from tidegate.errors import ConfigError

from .paper import Array, H, both, build, run, weights, σ


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_rhn(depth: int) -> None:
    cell = build("rhn", depth=depth)
    w = weights(cell)

    def equation(x: Array, s: Array) -> list[Array]:
        for layer in range(1, depth + 1):
            if layer == 1:
                h, t = np.tanh(both(w, "n", x, s)), σ(both(w, "t", x, s))
            else:
                R, b = w.P[f"weight_hh_{layer}"], w.P[f"bias_hh_{layer}"]
                h, t = np.tanh(s @ R[:H].T + b[:H]), σ(s @ R[H:].T + b[H:])
            s = h * t + s * (1 - t)
        return [s]

    run(cell, equation)


def test_depth_is_a_positive_integer() -> None:
    with pytest.raises(ConfigError, match="depth to be a positive integer; got 0"):
        CELLS["rhn"](2, 3, depth=0)
