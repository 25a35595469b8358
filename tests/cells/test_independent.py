"""A7: IndRNN and IRNN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from .paper import H, I, alone, both, build, run, weights


@pytest.mark.parametrize(("activation", "f"), [("relu", lambda v: np.maximum(v, 0)), ("tanh", np.tanh)])
def test_indrnn(activation: str, f) -> None:  # type: ignore[no-untyped-def]
    cell = build("indrnn", activation=activation)
    w = weights(cell)
    run(cell, lambda x, h: [f(alone(w, "n", x) + w.P["weight_u"] * h)])


def test_units_of_indrnn_do_not_see_each_other() -> None:
    cell = build("indrnn", activation="tanh")
    x, h = torch.randn(I, dtype=torch.float64), torch.randn(H, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda h: cell(x[None], h[None])[0][0], h)
    assert torch.equal(jacobian, jacobian.diag().diag())
    assert jacobian.diag().all()
    assert "weight_hh" not in cell.state_dict()
    u = cell.get_parameter("weight_u").detach()
    assert 0 <= float(u.min()) < float(u.max()) <= 1


def test_irnn() -> None:
    cell = build("irnn", init="xavier")
    w = weights(cell)
    run(cell, lambda x, h: [np.maximum(both(w, "n", x, h), 0)])


def test_irnn_begins_as_the_identity() -> None:
    cell = build("irnn")
    assert torch.equal(cell.weight_hh, torch.eye(H, dtype=torch.float64))
    h = torch.rand(2, H, dtype=torch.float64)
    assert torch.equal(cell(torch.zeros(2, I, dtype=torch.float64), h)[0], h)
    assert float(cell.weight_ih.detach().std()) < 0.002
    with torch.no_grad():
        cell.weight_hh.zero_()
    cell.reset_parameters()
    assert torch.equal(cell.weight_hh, torch.eye(H, dtype=torch.float64))
