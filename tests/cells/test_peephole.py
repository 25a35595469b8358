"""A3: peepholes, diagonal and full, with and without the gradient through them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .paper import H, I, Weights, both, build, run, weights, σ


def seen(w: Weights, gate: str, c):  # type: ignore[no-untyped-def]
    p = w.P[f"weight_c{gate}"]
    return c * p if p.ndim == 1 else c @ p.T


@pytest.mark.parametrize("candidate", [False, True])
@pytest.mark.parametrize("full", [False, True])
def test_a3_equation(full: bool, candidate: bool) -> None:
    options = {"candidate_peephole": candidate}
    cell = build("lstm_peephole_full", **options) if full else build("lstm_peephole", **options)
    w = weights(cell)

    def equation(x, h, c):  # type: ignore[no-untyped-def]
        i = σ(both(w, "i", x, h) + seen(w, "i", c))
        f = σ(both(w, "f", x, h) + seen(w, "f", c))
        g = np.tanh(both(w, "g", x, h) + (seen(w, "g", c) if candidate else 0))
        c = f * c + i * g
        return [σ(both(w, "o", x, h) + seen(w, "o", c)) * np.tanh(c), c]

    run(cell, equation)


def test_the_full_matrix_that_is_diagonal_is_the_diagonal_peephole() -> None:
    diagonal, full = build("lstm_peephole"), build("lstm_peephole_full")
    with torch.no_grad():
        for name, parameter in full.named_parameters():
            ours = diagonal.get_parameter(name)
            parameter.copy_(ours.diag() if name.startswith("weight_c") else ours)
    x, state = torch.randn(2, I, dtype=torch.float64), [torch.randn(2, H, dtype=torch.float64) for _ in "hc"]
    for a, b in zip(diagonal(x, tuple(state))[1], full(x, tuple(state))[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_without_peepholes_it_is_the_lstm() -> None:
    cell, plain = build("lstm_peephole"), build("lstm")
    with torch.no_grad():
        for gate in "ifo":
            cell.get_parameter(f"weight_c{gate}").zero_()
    cell.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, I, dtype=torch.float64)
    torch.testing.assert_close(cell(x)[0], plain(x)[0], rtol=0, atol=1e-15)


def test_stopped_peepholes_change_no_value_and_pass_no_error() -> None:
    """The gradient by c of the three gates' road is left out; what flows through c' itself stays."""
    x, h = torch.randn(2, I, dtype=torch.float64), torch.randn(2, H, dtype=torch.float64)
    found = {}
    for stop in (False, True):
        cell = build("lstm_peephole", stop_gradient=stop)
        c = torch.linspace(-1, 1, 2 * H, dtype=torch.float64).reshape(2, H).requires_grad_()
        y, (_, after) = cell(x, (h, c))
        by_c = torch.autograd.grad(after.sum(), c, retain_graph=True)[0]
        by_p = torch.autograd.grad(y.sum(), [cell.get_parameter(f"weight_c{g}") for g in "ifo"])
        found[stop] = (y, by_c, by_p)
    w = weights(build("lstm_peephole"))
    f = σ(both(w, "f", x.numpy(), h.numpy()) + seen(w, "f", c.detach().numpy()))
    assert torch.equal(found[False][0], found[True][0])
    np.testing.assert_allclose(found[True][1].numpy(), f, rtol=0, atol=1e-14)
    assert not torch.allclose(found[False][1], found[True][1])
    assert all(bool(g.any()) for g in found[True][2])
