"""torch.compile and torch.export keep a kernel as one node, lengths and all; the rest takes the reference's loop."""

from __future__ import annotations

import gc

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


def kernels(graph: torch.fx.Graph) -> int:
    return sum("tidegate.unroll" in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize(("number", "nodes"), [(0, 1), (1, 4), (2, 2)])
def test_a_kernel_is_one_node_however_many_steps_it_takes(number: int, nodes: int) -> None:
    found = []

    def backend(module: torch.fx.GraphModule, _: object) -> object:
        found.append(module.graph)
        return module.forward

    layer, x = layers()[number].eval(), torch.randn(2, 300, 3)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
    assert [kernels(graph) for graph in found] == [nodes]
    assert len(found[0].nodes) < 100
    exported = torch.export.export(layer, (x,))
    assert kernels(exported.graph) == nodes


def test_what_a_step_reads_of_its_cell_is_not_kept_when_it_changes() -> None:
    class Scaled(Mine):
        scale = 1.0

        def step(self, x, h):  # type: ignore[no-untyped-def]
            return self.scale * super().step(x, h)

    layer = Recurrent(Scaled(3, 4))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for scale in (1.0, 0.5):
        layer.cells[0].scale = scale
        torch.testing.assert_close(compiled(X)[0], layer(X)[0])


def test_a_graph_outlives_the_layer_it_was_made_of() -> None:
    layer = layers()[0].eval()
    expected = layer(X)[0]
    program = torch.export.export(layer, (X,)).module()
    del layer
    gc.collect()
    torch.testing.assert_close(program(X)[0], expected)


class Computed(Mine):
    def step(self, x, h):  # type: ignore[no-untyped-def]
        return torch.tanh(x[:, :4] + self.linear(h, self.weight_hh[:4] - self.weight_hh[:4].T))


class Sorting(Mine):
    def step(self, x, h):  # type: ignore[no-untyped-def]
        u, n = self.gate(x, h)
        return torch.sort(u, -1).values + n


@pytest.mark.parametrize("cell", [Computed, Sorting])
def test_what_no_node_can_hold_takes_the_loop(cell: type[Cell]) -> None:
    layer = Recurrent(cell(3, 4))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X)[0], layer(X)[0])


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
