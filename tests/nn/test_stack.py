"""A9: what each connection computes."""

from __future__ import annotations

import torch

from tidegate.cells import GRU
from tidegate.compile.select import unroll
from tidegate.nn import Recurrent

X = torch.randn(2, 5, 3)


def f(layer: Recurrent, index: int, x: torch.Tensor) -> torch.Tensor:
    return unroll(layer.cells[index], x)[0]


def test_a9_residual_maps_only_where_widths_differ() -> None:
    layer = Recurrent(GRU(3, 4), layers=2, residual=True)
    w = layer.connection.maps[0].weight
    h1 = f(layer, 0, X) + X @ w.T
    torch.testing.assert_close(layer(X)[0], f(layer, 1, h1) + h1)
    same = Recurrent(GRU(3, 3), connection="residual")
    torch.testing.assert_close(same(X)[0], f(same, 0, X) + X)
    assert not list(same.connection.parameters())


def test_a9_highway() -> None:
    layer = Recurrent(GRU(3, 3), connection="highway")
    gate = layer.connection.gates[0]
    assert torch.equal(gate.bias, torch.full((3,), -1.0))
    t = torch.sigmoid(X @ gate.weight.T + gate.bias)
    torch.testing.assert_close(layer(X)[0], t * f(layer, 0, X) + (1 - t) * X)


def test_a9_dense_reads_everything_below() -> None:
    layer = Recurrent(GRU(3, 4), layers=3, connection="dense")
    h1 = f(layer, 0, X)
    h2 = f(layer, 1, torch.cat([X, h1], -1))
    torch.testing.assert_close(layer(X)[0], f(layer, 2, torch.cat([X, h1, h2], -1)))
    assert layer.output_size == 4


def test_a9_skip_shows_the_input_to_all_and_gives_all() -> None:
    layer = Recurrent(GRU(3, 4), layers=3, connection="skip")
    h1 = f(layer, 0, X)
    h2 = f(layer, 1, torch.cat([X, h1], -1))
    h3 = f(layer, 2, torch.cat([X, h2], -1))
    torch.testing.assert_close(layer(X)[0], torch.cat([h1, h2, h3], -1))
    assert layer.output_size == 12
