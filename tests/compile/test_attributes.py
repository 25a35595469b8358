"""What a step reads of its cell may change between calls: runs, steps and streams then do what the reference does."""

from __future__ import annotations

import copy
import gc
import types
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tidegate.cells import CELLS, Cell
from tidegate.compile.attributes import attributes, cannot_change_unseen
from tidegate.nn import Recurrent


class Nested(Cell):
    gates = ("n",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.act = nn.Tanh()
        self.inner = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh())

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (n,) = self.gate(x, h)
        return self.inner(self.act(n))


class Plain(Cell):
    gates = ("n",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.function: Callable[[Tensor], Tensor] = torch.tanh
        self.sizes = (1.0, (2.0,))

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (n,) = self.gate(x, h)
        return self.sizes[0] * self.function(n) / self.sizes[1][0]


class Holding(Plain):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.options, self.list = {"scale": 1.0}, [1.0]

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return super().step(x, h) * self.options["scale"] * self.list[0]


def other_step(self: Cell, x: Tensor, h: Tensor) -> Tensor:
    return torch.sigmoid(self.gate(x, h)[0])


def set_function(cell: Cell) -> None:
    cell.function = torch.sigmoid


def set_sizes(cell: Cell) -> None:
    cell.sizes = (1.0, (4.0,))


CHANGES: list[tuple[type[Cell], Callable[[Cell], object]]] = [
    (Nested, lambda c: setattr(c, "act", nn.Sigmoid())),
    (Nested, lambda c: c.inner.__setitem__(1, nn.Sigmoid())),
    (Nested, lambda c: c.inner.__setitem__(0, nn.Linear(8, 8, bias=False))),
    (Nested, lambda c: setattr(c.inner[0], "bias", None)),
    (Nested, lambda c: c.inner[0].register_forward_hook(lambda *given: given[2] * 2)),
    (Plain, set_function),
    (Plain, set_sizes),
    (Plain, lambda c: setattr(c, "step", types.MethodType(other_step, c))),
    (Holding, set_function),
    (Holding, lambda c: c.options.__setitem__("scale", 2.0)),
    (Holding, lambda c: c.list.__setitem__(0, 3.0)),
]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*runs step by step")
@pytest.mark.parametrize(("kind", "change"), CHANGES)
def test_what_changes_is_seen(kind: type[Cell], change: Callable[[Cell], object]) -> None:
    torch.manual_seed(0)
    layer, x = Recurrent(kind(6, 8)).eval(), torch.randn(3, 5, 6)
    stream = layer.stream(3)
    for _ in range(3):
        before, _ = layer(x)
        layer.step(x[:, 0])
        stream(x[:, 0])
    change(layer.cells[0])
    plain = copy.deepcopy(layer)
    plain.backend = "reference"
    expected, _ = plain(x)
    assert (expected - before).abs().max() > 1e-3
    stream.reset()
    for found in (layer(x)[0], torch.stack([stream(x_t) for x_t in x.unbind(1)], 1)):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layer.step(x[:, 0])[0], expected[:, 0])


@pytest.mark.parametrize("kind", [Nested, Plain, Holding])
def test_what_stays_is_equal(kind: type[Cell]) -> None:
    cell = kind(6, 8)
    Recurrent(cell)(torch.randn(2, 3, 6))
    assert attributes(cell) == attributes(cell)
    assert hash(attributes(cell)) == hash(attributes(cell))


def test_a_compared_object_is_not_kept_and_its_place_is_nobodys() -> None:
    cell = Plain(6, 8)
    cell.function = lambda v: torch.tanh(v)
    alive, before = weakref.ref(cell.function), attributes(cell)
    cell.function = torch.tanh
    gc.collect()
    assert alive() is None
    assert attributes(cell) != before


def test_cells_of_the_catalogue_cannot_change_unseen() -> None:
    for name in CELLS:
        assert cannot_change_unseen(CELLS[name](4, 4)), name
    assert not cannot_change_unseen(Nested(4, 4))
    assert not cannot_change_unseen(Holding(4, 4))
