"""Layers prepared for whole batches give what slow calls give, whatever happened to the layer in between."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from tidegate.cells import CELLS, GRU, LSTM, Elman
from tidegate.compile.runner import Runners
from tidegate.errors import ShapeError
from tidegate.nn import Recurrent
from tidegate.nn.norms import NORMS

X = torch.randn(3, 40, 5, dtype=torch.float64)


def build(kind: Callable[..., GRU], layers: int = 1) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(kind(5, 4, dtype=torch.float64), layers=layers)


def same_as_reference(layer: Recurrent, x: Tensor, state: object = None) -> None:
    """Outputs, states and all gradients."""
    plain = copy.deepcopy(layer)
    plain.backend = "reference"
    found = []
    for each in (layer, plain):
        leaf = x.detach().requires_grad_()
        y, after = each(leaf, state)
        ends = after if isinstance(after, tuple) else (after,)
        total = y.square().sum() + sum(s.sin().sum() for s in ends)
        found.append([y, *ends, *torch.autograd.grad(total, [leaf, *each.parameters()])])
    torch.testing.assert_close(*found)


def runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each call of a prepared run did it."""
    done: list[bool] = []
    original = Runners.run

    def spy(self: Runners, *arguments: Tensor) -> object:
        result = original(self, *arguments)  # type: ignore[arg-type]
        done.append(result is not None)
        return result

    monkeypatch.setattr(Runners, "run", spy)
    return done


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_prepared_runs_equal_the_reference(
    kind: Callable[..., GRU], layers: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, done = build(kind, layers), runs(monkeypatch)
    same_as_reference(layer, X[:batch])
    _, state = layer(X[:batch])
    detached = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
    same_as_reference(layer, X[:batch], detached)
    same_as_reference(layer, X[:batch].transpose(0, 1).contiguous().transpose(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(layer.eval()(X[:batch])[0], layer.train()(X[:batch])[0])
    assert done
    assert all(done)


def test_gradients_reach_a_state_that_is_given() -> None:
    layer = build(LSTM)
    h, c = (torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda h, c: layer(X[:, :3], (h, c))[0], (h, c))


@pytest.mark.parametrize("steps", [1, 31, 32, 33, 65])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_steps_that_are_taken_ahead_equal_the_reference(kind: Callable[..., GRU], steps: int) -> None:
    layer = build(kind)
    plain = copy.deepcopy(layer)
    plain.backend = "reference"
    x = torch.randn(2, steps, 5, dtype=torch.float64)
    for lengths in (None, torch.tensor([steps, 0]), torch.tensor([steps // 2, steps])):
        resets = None if lengths is None else torch.arange(steps).expand(2, steps) % 7 == 3
        torch.testing.assert_close(layer(x, lengths=lengths, resets=resets), plain(x, lengths=lengths, resets=resets))


def set_anew(layer: Recurrent) -> None:
    layer.cells[0].weight_hh = nn.Parameter(torch.randn(12, 4, dtype=torch.float64))


def changed_in_place(layer: Recurrent) -> None:
    with torch.no_grad():
        layer.cells[0].bias_ih.add_(1.0)


def parametrized(layer: Recurrent) -> None:
    nn.utils.parametrizations.weight_norm(layer.cells[0], "weight_hh")


def frozen(layer: Recurrent) -> None:
    layer.cells[0].weight_ih.requires_grad_(False)
    layer.cells[0].weight_ih = nn.Parameter(layer.cells[0].weight_ih.detach() * 2)


def other_memory(layer: Recurrent) -> None:
    layer.cells[0].weight_ih.data = layer.cells[0].weight_ih.data.flip(0)


def with_another_cell(layer: Recurrent) -> None:
    layer.cells[0] = CELLS["gru_reset_before"](5, 4, dtype=torch.float64)


def with_other_cells(layer: Recurrent) -> None:
    layer.cells = nn.ModuleList([GRU(5, 4, dtype=torch.float64)])


def with_a_copy(layer: Recurrent) -> None:
    """A copy is another cell, though all that was set of it is what was set of the first."""
    other = copy.deepcopy(layer.cells[0])
    with torch.no_grad():
        other.weight_hh.mul_(0.5)
    layer.cells[0] = other


def with_an_unpickled_one(layer: Recurrent) -> None:
    with torch.no_grad():
        kept = pickle.dumps(layer.cells[0])
        layer.cells[0].weight_hh.mul_(0.5)
    layer.cells[0] = pickle.loads(kept)


def with_a_norm(layer: Recurrent) -> None:
    layer.norms = nn.ModuleList([NORMS["layer"](4).double()])


CHANGES = (
    *(set_anew, changed_in_place, parametrized, frozen, other_memory),
    *(with_another_cell, with_other_cells, with_a_copy, with_an_unpickled_one, with_a_norm),
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_happens_to_a_layer_is_seen(change: Callable[[Recurrent], None]) -> None:
    layer = build(GRU)
    layer(X)
    stream = layer.stream(3)
    with torch.no_grad():
        layer.step(X[:, 0])
        stream(X[:, 0])
        stream.reset()
        change(layer)
        one = copy.deepcopy(layer).eval()
        one.backend = "reference"
        expected = one(X[:, :1])[0][:, 0]
        torch.testing.assert_close(layer.step(X[:, 0])[0], expected)
        torch.testing.assert_close(stream(X[:, 0]), expected)
    same_as_reference(layer, X)


class Halved(GRU):
    """A cell that does something else in training, without drawing anything."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        new = super().step(x, h)
        assert isinstance(new, Tensor)
        return new / 2 if self.training else new


def test_training_and_evaluation_are_prepared_apart() -> None:
    layer = build(Halved)
    for training in (True, False, False, True):
        layer.train(training)
        same_as_reference(layer, X)


def test_a_change_that_changes_nothing_is_none() -> None:
    cell = GRU(5, 4)
    before = cell.changes
    cell.train().train()
    assert cell.changes == before
    cell.eval()
    assert cell.changes != before
    assert copy.copy(cell).changes != cell.changes


def test_other_weights_for_one_call() -> None:
    layer = build(GRU)
    plain = layer(X)[0]
    weights = {name: (2 * value).detach().requires_grad_() for name, value in layer.named_parameters()}
    y, _ = torch.func.functional_call(layer, weights, (X,))
    expected = copy.deepcopy(layer)
    expected.load_state_dict({name: value.detach() for name, value in weights.items()})
    torch.testing.assert_close(y, expected(X)[0])
    assert all(g is not None for g in torch.autograd.grad(y.sum(), list(weights.values())))
    torch.testing.assert_close(layer(X)[0], plain)


def test_another_dtype_and_noise() -> None:
    layer = build(LSTM, layers=2)
    layer(X)
    assert layer.float()(X.float())[0].dtype == torch.float32
    layer.dropout = 0.5
    assert not torch.equal(layer(X.float())[0], layer(X.float())[0])
    layer.eval()
    assert torch.equal(layer(X.float())[0], layer(X.float())[0])


def test_operations_are_seen_by_who_watches() -> None:
    layer = build(GRU)
    layer(X)
    seen = []

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watching():
        layer(X)
    assert any("tidegate.unroll" in name for name in seen)
    with FlopCounterMode(display=False):
        layer(X)


@pytest.mark.parametrize(
    "wrong",
    [
        (X[..., :4],),
        (X.float(),),
        (X[0],),
        (X.numpy(),),
        (X, torch.zeros(1, 2, 4, dtype=torch.float64)),
        (X, torch.zeros(1, 3, 4)),
        (X, (torch.zeros(1, 3, 4, dtype=torch.float64),)),
        (X, 3),
        (X, ()),
        (X[..., :0],),
    ],
    ids=["width", "dtype", "axes", "no tensor", "rows", "dtype of the state", "a tuple", "number", "nothing", "empty"],
)
@pytest.mark.parametrize("kind", [GRU, LSTM])
def test_what_does_not_fit_is_told_as_without_preparation(kind: Callable[..., GRU], wrong: tuple[object, ...]) -> None:
    fresh, used = build(kind), build(kind)
    used(X)
    told = []
    for layer in (fresh, used):
        with pytest.raises(ShapeError) as error:
            layer(*wrong)
        told.append(str(error.value))
    assert told[0] == told[1]


def test_copies_are_prepared_anew() -> None:
    layer = build(GRU)
    y = layer(X)[0]
    other = copy.deepcopy(layer)
    with torch.no_grad():
        layer.cells[0].weight_hh.zero_()
    torch.testing.assert_close(other(X)[0], y)


class Doubling(GRU):
    """Gives out twice what it is given, in place."""

    def readout(self, outputs: Tensor) -> Tensor:
        return outputs.mul_(2.0)


class Drawing(GRU):
    """Gives out what chance leaves."""

    def readout(self, outputs: Tensor) -> Tensor:
        return nn.functional.dropout(outputs, 0.5, self.training)


def test_outputs_that_a_cell_makes_of_its_own() -> None:
    layer, plain = build(Doubling), build(GRU)
    torch.testing.assert_close(layer(X)[0], 2 * plain(X)[0])
    with torch.no_grad():
        torch.testing.assert_close(layer.step(X[:, 0])[0], 2 * plain.step(X[:, 0])[0])
    drawing, found = build(Drawing), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(drawing(X)[0])
    assert torch.equal(*found)


def test_the_choice_of_a_backend_does_not_depend_on_calls_before() -> None:
    torch.manual_seed(0)
    cell = CELLS["mingru"](5, 32)
    x = torch.randn(4, 2048, 5)
    fresh, used = Recurrent(cell), Recurrent(cell)
    used(x)
    assert torch.equal(fresh(x[:1])[0], used(x[:1])[0])
    lstm, x = Recurrent(CELLS["lstm"](3, 256)), torch.randn(2, 8, 3)
    lstm.backend = "llvm"
    lstm(x)
    lstm.backend = "auto"
    assert "Unroll" not in type(lstm(x)[0].grad_fn).__name__


def test_what_was_read_may_not_change_before_the_reverse() -> None:
    layer, x = build(GRU), X.clone()
    y = layer(x)[0]
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(y.sum(), list(layer.parameters()))


def test_tensors_of_inference_are_read_in_training() -> None:
    layer = build(GRU)
    expected = torch.autograd.grad(layer(X)[0].sum(), list(layer.parameters()))
    with torch.inference_mode():
        x = X + 0
    torch.testing.assert_close(torch.autograd.grad(layer(x)[0].sum(), list(layer.parameters())), expected)


def test_outputs_may_be_changed_in_place_whoever_watches() -> None:
    layer = build(GRU)
    with FlopCounterMode(display=False):
        y, _ = layer(X)
        y.add_(1.0)
    y.sum().backward()


def test_forward_mode_takes_a_backend_that_has_it() -> None:
    layer = build(GRU)
    with torch.no_grad(), forward_ad.dual_level():
        y, _ = layer(forward_ad.make_dual(X, torch.ones_like(X)))
        tangent = forward_ad.unpack_dual(y).tangent
    near = layer(X + 1e-6)[0] - layer(X - 1e-6)[0]
    torch.testing.assert_close(tangent, near / 2e-6, rtol=1e-5, atol=1e-7)
