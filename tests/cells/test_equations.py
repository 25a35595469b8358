"""A1, A2, A4, A5, A6: each step equals its equation, written out in NumPy from the paper's form."""

from __future__ import annotations

import re
from math import erf
from pathlib import Path

import numpy as np
import pytest
import torch

from tidegate.cells import CELLS, LSTM
from tidegate.compile.select import unroll

from .paper import Array, B, I, T, build, run, weights, σ

ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda v: np.maximum(v, 0),
    "leaky_relu": lambda v: np.where(v > 0, v, 0.01 * v),
    "sigmoid": σ,
    "gelu": lambda v: v * 0.5 * (1 + np.vectorize(erf)(v / np.sqrt(2))),
}


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_a1_elman(activation: str) -> None:
    cell = build("rnn", activation=activation)
    W, U, b, c, _ = weights(cell)
    f = ACTIVATIONS[activation]
    run(cell, lambda x, h: [f(x @ W["n"].T + h @ U["n"].T + b["n"] + c["n"])])


def test_a1_elman_with_a_callable_and_an_output_layer() -> None:
    cell = build("rnn", activation=torch.sin, output_size=2)
    W, U, b, c, _ = weights(cell)
    run(cell, lambda x, h: [np.sin(x @ W["n"].T + h @ U["n"].T + b["n"] + c["n"])], compare_outputs=False)
    x = torch.randn(B, T, I, dtype=torch.float64)
    y, _ = unroll(cell, x, backend="reference")
    _, h = unroll(cell, x[:, :3], backend="reference")
    V, b_y = cell.get_parameter("weight_ho"), cell.get_parameter("bias_ho")
    torch.testing.assert_close(y[:, 2], h @ V.T + b_y)


@pytest.mark.parametrize("proj_size", [0, 3])
def test_a2_lstm(proj_size: int) -> None:
    cell = build("lstm", proj_size=proj_size)
    assert isinstance(cell, LSTM)
    W, U, b, b_h, _ = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        i, f, g, o = (x @ W[k].T + h @ U[k].T + b[k] + b_h[k] for k in "ifgo")
        c = σ(f) * c + σ(i) * np.tanh(g)
        h = σ(o) * np.tanh(c)
        return [h @ cell.weight_hr.detach().numpy().T if proj_size else h, c]

    run(cell, equation)


def test_a4_gru_reset_before_the_product() -> None:
    cell = build("gru_reset_before")
    W, U, b, c, _ = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        r, z = (σ(x @ W[k].T + h @ U[k].T + b[k] + c[k]) for k in "rz")
        both = np.concatenate([W["n"], U["n"]], 1)
        n = np.tanh(np.concatenate([x, r * h], 1) @ both.T + b["n"] + c["n"])
        return [(1 - z) * h + z * n]

    run(cell, equation)


def test_a5_gru_reset_after_the_product() -> None:
    cell = build("gru")
    W, U, b, c, _ = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        r, z = (σ(x @ W[k].T + h @ U[k].T + b[k] + c[k]) for k in "rz")
        n = np.tanh(x @ W["n"].T + b["n"] + r * (h @ U["n"].T + c["n"]))
        return [(1 - z) * n + z * h]

    run(cell, equation)


def test_a6_gru_with_a_merge_gate() -> None:
    cell = build("gru_merge")
    W, U, b, c, _ = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        r, z = (σ(x @ W[k].T + h @ U[k].T + b[k] + c[k]) for k in "rz")
        n = np.tanh(x @ W["n"].T + (1 - r) * (h @ U["n"].T) + b["n"] + c["n"])
        return [(1 - z) * h + z * n]

    run(cell, equation)


def test_every_registered_cell_has_its_equation_in_this_folder() -> None:
    written = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    ours = {name for name, cell in CELLS.items() if cell.__module__.startswith("tidegate.")}
    assert set(re.findall(r'build\("(\w+)"', written)) == ours
