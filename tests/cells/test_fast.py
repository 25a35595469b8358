"""A7: FastRNN and FastGRNN."""

from __future__ import annotations

import numpy as np
import torch

from .paper import Array, H, I, both, build, run, weights, σ


def test_fastrnn() -> None:
    cell = build("fastrnn")
    w = weights(cell)
    alpha, beta = σ(w.P["alpha"]), σ(w.P["beta"])
    run(cell, lambda x, h: [alpha * np.tanh(both(w, "n", x, h)) + beta * h])


def test_fastgrnn() -> None:
    """b_z of the paper is the candidate's bias and `bias_z` together."""
    cell = build("fastgrnn")
    w = weights(cell)
    b_n = w.b["n"] + w.c["n"]
    b_z = b_n + w.P["bias_z"]

    def equation(x: Array, h: Array) -> list[Array]:
        shared = x @ w.W["n"].T + h @ w.U["n"].T
        z, n = σ(shared + b_z), np.tanh(shared + b_n)
        return [(σ(w.P["zeta"]) * (1 - z) + σ(w.P["nu"])) * n + z * h]

    run(cell, equation)


def test_what_they_have_beside_one_layers_weights() -> None:
    plain = sum(p.numel() for p in build("rnn").parameters())
    assert sum(p.numel() for p in build("fastrnn").parameters()) == plain + 2
    assert sum(p.numel() for p in build("fastgrnn").parameters()) == plain + 2 + H
    cell = build("fastrnn")
    with torch.no_grad():
        cell.get_parameter("alpha").zero_()
    cell.reset_parameters()
    assert [float(cell.get_parameter(k).detach()) for k in ("alpha", "beta")] == [-3.0, 3.0]
    assert [float(build("fastgrnn").get_parameter(k).detach()) for k in ("zeta", "nu")] == [1.0, -4.0]


def test_at_first_fastrnn_keeps_most_of_its_state() -> None:
    cell, h = build("fastrnn"), torch.ones(1, H, dtype=torch.float64)
    y, _ = cell(torch.randn(1, I, dtype=torch.float64), h)
    assert float((y - σ(np.float64(3)) * h).detach().abs().max()) < σ(np.float64(-3))
