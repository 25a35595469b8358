"""Running steps a second time instead of keeping what they leave changes nothing but the memory it takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tidegate.cells import GRU, LSTM, Cell
from tidegate.errors import BackendError, ConfigError
from tidegate.nn import Recurrent

from .cases import STOCK, VARIANTS, assert_close, beside, gradients, some_lengths

EVERY = [name for name in VARIANTS if "=" not in name]
BATCH, STEPS = 3, 21


def results(layer: Recurrent, x: Tensor, recompute: bool, **given: Tensor) -> list[Tensor]:
    """Outputs, last state and all gradients, noise drawn from the same seed."""
    layer.recompute = recompute
    torch.manual_seed(5)
    y, state = layer(x, **given)
    ends = [state] if isinstance(state, Tensor) else list(state)
    leaves = [x, *(t for t in given.values() if t.requires_grad), *layer.parameters()]
    return [t.detach() for t in (y, *ends, *gradients([y, *ends], leaves))]


def compare(layer: Recurrent, **given: Tensor) -> None:
    torch.manual_seed(1)
    x = torch.randn(BATCH, STEPS, layer.input_size, dtype=torch.float64, requires_grad=True)
    given |= {name: t.requires_grad_(t.is_floating_point()) for name, t in beside(layer.cells[0], x.detach()).items()}
    assert_close(results(layer, x, True, **given), results(layer, x, False, **given), 1e-11)


def _told_apart() -> list[object]:
    """Every cell, slow where one before has as many states and gates, and reads the same: the rest is the kernels'."""
    found: list[object] = []
    seen = set()
    for name in EVERY:
        cell = VARIANTS[name](5, 4)
        kind = (cell.state_sizes, len(cell.gates), cell.inputs, name if name in STOCK else "")
        found.append(pytest.param(name, marks=[pytest.mark.slow] * (kind in seen)))
        seen.add(kind)
    return found


@pytest.mark.parametrize("name", _told_apart())
def test_it_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    compare(Recurrent(VARIANTS[name](5, 4, dtype=torch.float64)))


@pytest.mark.parametrize("backend", ["llvm", "reference"])
@pytest.mark.parametrize("technique", [{}, {"zoneout": 0.3}, {"variational_dropout": 0.3, "layer_norm": True}])
def test_nor_with_lengths_resets_noise_layers_and_directions(backend: str, technique: dict[str, object]) -> None:
    torch.manual_seed(0)
    cell = LSTM(5, 4, dtype=torch.float64, **technique)
    resets = torch.arange(STEPS).expand(BATCH, STEPS) % 4 == 1
    layer = Recurrent(cell, layers=2, bidirectional=True, dropout=0.2, connection="residual", backend=backend)
    compare(layer, lengths=some_lengths(BATCH, STEPS), resets=resets)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_sequences(steps: int) -> None:
    layer = Recurrent(GRU(5, 4, dtype=torch.float64))
    x = torch.randn(BATCH, steps, 5, dtype=torch.float64, requires_grad=True)
    assert_close(results(layer, x, True), results(layer, x, False), 1e-12)


def test_it_keeps_little() -> None:
    layer = Recurrent(LSTM(8, 32))
    x = torch.randn(4, 400, 8, requires_grad=True)
    kept = {}
    for recompute in (False, True):
        storages: dict[int, int] = {}

        def keep(t: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        layer.recompute = recompute
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            layer(x)
        kept[recompute] = sum(storages.values())
    states = 20 * 2 * 4 * 32 * 4  # √T times h and c of 4 rows
    weights = sum(p.nbytes for p in layer.parameters())
    assert kept[True] <= x.nbytes + weights + 1.2 * states
    assert kept[False] > 4 * kept[True]


def test_it_is_itself_under_autocast() -> None:
    layer = Recurrent(GRU(5, 4))
    x = torch.randn(BATCH, STEPS, 5, requires_grad=True)
    found = []
    for recompute in (True, False):
        layer.recompute = recompute
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y, _ = layer(x)
        found.append(torch.autograd.grad(y.sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(*found, rtol=0.02, atol=0.02)


def test_weights_that_are_computed_when_read_are_as_good_as_parameters() -> None:
    layer = Recurrent(GRU(5, 4, dtype=torch.float64))
    nn.utils.parametrizations.weight_norm(layer.cells[0], "weight_hh")
    compare(layer)


def test_weights_that_may_differ_the_second_time_are_refused() -> None:
    layer = Recurrent(GRU(5, 4), recompute=True)
    prune.l1_unstructured(layer.cells[0], "weight_hh", 0.5)
    with pytest.raises(ConfigError, match="recompute=False"):
        layer(torch.randn(1, 9, 5))
    whole = Recurrent(GRU(5, 4), recompute=True)
    with pytest.raises(ConfigError, match="recompute=True"):
        torch.func.functional_call(whole, {n: p * 2 for n, p in whole.named_parameters()}, (torch.randn(1, 9, 5),))


class Dropping(GRU):
    """A cell that draws in its step: it takes the reference's loop."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        return nn.functional.dropout(super().step(x, h), 0.5, self.training)


@pytest.mark.filterwarnings("ignore:Dropping runs step by step")
@pytest.mark.parametrize(
    "cell",
    [Dropping(5, 4, dtype=torch.float64), GRU(5, 4, zoneout=0.5, dtype=torch.float64)],
    ids=["drawn in the step", "zoneout"],
)
def test_the_second_run_is_as_the_first_whatever_came_between(cell: Cell) -> None:
    layer = Recurrent(cell)
    x, found = torch.randn(BATCH, STEPS, 5, dtype=torch.float64), []
    for recompute in (True, False):
        layer.recompute = recompute
        layer.train()
        torch.manual_seed(3)
        y, _ = layer(x)
        if recompute:
            layer.eval()
            torch.rand(7)
        found.append(torch.autograd.grad(y.square().sum(), list(layer.parameters())))
        assert layer.training is not recompute
    torch.testing.assert_close(*found)


def test_other_weights_at_the_second_run_are_refused() -> None:
    layer = Recurrent(GRU(5, 4), recompute=True)
    weights = {name: nn.Parameter(2 * value.detach()) for name, value in layer.named_parameters()}
    y, _ = torch.func.functional_call(layer, weights, (torch.randn(1, 9, 5),))
    with pytest.raises(BackendError, match="functional_call"):
        y.sum().backward()


def test_a_parameter_that_takes_no_part_has_no_gradient() -> None:
    cell = GRU(5, 4)
    cell.unused = nn.Parameter(torch.zeros(3))
    Recurrent(cell, recompute=True)(torch.randn(1, 9, 5))[0].sum().backward()
    assert cell.unused.grad is None
    assert cell.weight_hh.grad is not None


def test_weights_changed_before_the_gradient_are_noticed() -> None:
    layer = Recurrent(GRU(5, 4), recompute=True)
    y, _ = layer(torch.randn(1, 9, 5))
    with torch.no_grad():
        layer.cells[0].weight_hh.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_second_derivative_is_refused() -> None:
    layer = Recurrent(GRU(5, 4), recompute=True)
    x = torch.randn(1, 9, 5, requires_grad=True)
    (g,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="second derivative"):
        g.sum().backward()


def test_without_gradients_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("tidegate.compile.select.segments.recompute", cut)
    with torch.no_grad():
        Recurrent(GRU(5, 4), recompute=True)(torch.randn(1, 9, 5))


class Learned(Cell):
    """A cell whose step reads a parameter of a module within it."""

    gates = ("n",)

    def __init__(self, *sizes: int, **options: object) -> None:
        super().__init__(*sizes, **options)  # type: ignore[arg-type]
        self.inner = nn.Linear(self.hidden_size, self.hidden_size, dtype=self.weight_ih.dtype)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return torch.tanh(self.inner(n))


def test_modules_within_a_cell() -> None:
    torch.manual_seed(0)
    compare(Recurrent(Learned(5, 4, dtype=torch.float64)))
