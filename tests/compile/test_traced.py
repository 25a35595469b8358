"""torch.compile and torch.export take the reference's loop, lengths and all."""

from __future__ import annotations

import pytest
import torch

from tidegate import nn as tnn
from tidegate.cells import GRU, Cell
from tidegate.nn import Recurrent

X = torch.randn(4, 5, 3)
LENGTHS = torch.tensor([2, 5, 0, 3])


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


class Mine(Cell):
    gates = ("u", "n")

    def step(self, x, h):  # type: ignore[no-untyped-def]
        u, n = self.gate(x, h)
        return torch.lerp(h, torch.tanh(n), torch.sigmoid(u))


def layers() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    return [
        tnn.LSTM(3, 4, batch_first=True),
        tnn.GRU(3, 4, 2, batch_first=True, bidirectional=True),
        Recurrent(Mine(3, 4), layers=2, connection="highway"),
    ]


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("lengths", [None, LENGTHS, torch.full((4,), 5)])
def test_compiled_equals_eager_with_gradients(number: int, lengths: torch.Tensor | None) -> None:
    layer = layers()[number]
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    found = []
    for run in (layer, compiled):
        y, _ = run(X, lengths=lengths)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("number", range(3))
def test_exported_runs_on_lengths_it_has_not_seen(number: int) -> None:
    layer = layers()[number]
    program = torch.export.export(layer, (X,), {"lengths": LENGTHS}).module()
    for lengths in (LENGTHS, torch.full((4,), 5), torch.zeros(4, dtype=torch.int64), torch.tensor([5, 1, 2, 4])):
        torch.testing.assert_close(program(X, lengths=lengths)[0], layer(X, lengths=lengths)[0])


def test_resets_too() -> None:
    layer = Recurrent(GRU(3, 4), bidirectional=True)
    resets = torch.arange(5).expand(4, 5) % 2 == 1
    compiled = torch.compile(layer, backend="aot_eager")
    expected = layer(X, lengths=LENGTHS, resets=resets)[0]
    torch.testing.assert_close(compiled(X, lengths=LENGTHS, resets=resets)[0], expected)
