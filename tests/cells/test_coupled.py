"""A7: CIFG, JANET, multiplicative LSTM, RAN."""

from __future__ import annotations

import numpy as np
import pytest

from tidegate.cells import CELLS
from tidegate.errors import ConfigError

from .paper import Array, alone, both, build, run, weights, σ


def test_cifg() -> None:
    """The paper keeps i and has f = 1−i: the negated weights of f give i."""
    cell = build("lstm_cifg")
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        i = σ(-both(w, "f", x, h))
        c = (1 - i) * c + i * np.tanh(both(w, "g", x, h))
        return [σ(both(w, "o", x, h)) * np.tanh(c), c]

    run(cell, equation)


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_janet(beta: float) -> None:
    cell = build("janet", beta=beta)
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        s = both(w, "f", x, h)
        return [σ(s) * h + (1 - σ(s - beta)) * np.tanh(both(w, "g", x, h))]

    run(cell, equation)


def test_multiplicative_lstm() -> None:
    cell = build("mlstm")
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        m = (x @ w.W["m"].T + w.b["m"]) * (h @ w.U["m"].T + w.c["m"])
        i, f, o = (σ(both(w, k, x, m)) for k in "ifo")
        c = f * c + i * np.tanh(both(w, "g", x, m))
        return [np.tanh(c) * o, c]

    run(cell, equation)


@pytest.mark.parametrize("output", ["tanh", "identity"])
def test_ran(output: str) -> None:
    cell = build("ran", output=output)
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        i, f = (σ(both(w, k, x, h)) for k in "if")
        c = i * alone(w, "g", x) + f * c
        return [np.tanh(c) if output == "tanh" else c, c]

    run(cell, equation)


def test_a_choice_that_is_none_is_said() -> None:
    with pytest.raises(ConfigError, match="building RAN; expected output to be one of 'tanh', 'identity'; got 'relu'"):
        CELLS["ran"](2, 3, output="relu")
