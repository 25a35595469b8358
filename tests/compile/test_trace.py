"""What a step becomes as a graph, and what is said of one that cannot become one."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tidegate import nn as tnn
from tidegate.cells import LSTM, Cell
from tidegate.compile import compiled
from tidegate.compile.graph import reachable
from tidegate.compile.select import unroll
from tidegate.compile.trace import trace
from tidegate.errors import BackendError, ConfigError, ShapeError

X = torch.randn(2, 3, 4)


class Broken(Cell):
    gates = ("u", "n")


class Branches(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return n if u.sum() > 0 else h


class InPlace(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return u.mul_(n)


class Adds(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        u += n
        return u


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v):
        return (v > 0).to(v.dtype)

    @staticmethod
    def backward(ctx, g):
        return g


class Fires(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return Straight.apply(u) * torch.tanh(n)


class Freezes(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        with torch.no_grad():
            s = torch.sigmoid(u)
        return s * torch.tanh(n)


class Hooks(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        n.register_hook(lambda g: 0.5 * g)
        return u * torch.tanh(n)


class Sorts(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return torch.sort(u, -1).values + n


class Mixes(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return u + n.mean(0, keepdim=True)


class Draws(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return u + torch.rand_like(n)


class Miscounts(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n, _ = self.gate(x, h)
        return u + n


class Widens(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return torch.cat([u, n], -1)


@pytest.mark.parametrize(
    ("cell", "line", "instead"),
    [
        (Branches, "return n if u.sum() > 0 else h", "torch.where"),
        (InPlace, "return u.mul_(n)", "torch.mul"),
        (Adds, "u += n", "an operator that makes"),
        (Fires, "return Straight.apply(u) * torch.tanh(n)", "soft + (hard - soft).detach()"),
        (Freezes, "s = torch.sigmoid(u)", "x.detach()"),
        (Sorts, "return torch.sort(u, -1).values + n", "elementwise"),
        (Mixes, "return u + n.mean(0, keepdim=True)", "reductions over the last axis"),
        (Draws, "return u + torch.rand_like(n)", "`inputs`"),
    ],
)
def test_a_step_that_does_not_compile_is_told_its_line_and_what_to_write(
    cell: type[Cell], line: str, instead: str
) -> None:
    with pytest.raises(BackendError) as raised:
        unroll(cell(4, 3), X, backend="llvm")
    assert "test_trace.py, line" in str(raised.value)
    assert line in str(raised.value)
    assert instead in str(raised.value)


class Overwrites(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        _, n = self.gate(x, h)
        return h.mul_(0.5) + torch.tanh(n)


class OverwritesAPart(Broken):
    states = ("h", "c")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        _, n = self.gate(x, h)
        c[:, :1] += 1
        return torch.tanh(n), c


@pytest.mark.parametrize(
    ("cell", "change", "line"),
    [
        (Overwrites, "mul_ changes h", "return h.mul_(0.5) + torch.tanh(n)"),
        (OverwritesAPart, "changes c", "c[:, :1] +="),
    ],
)
def test_a_step_that_changes_its_states_is_refused_where_the_loop_would_go_wrong(
    cell: type[Cell], change: str, line: str
) -> None:
    state = cell(4, 3).initial_state(len(X))
    for backend in ("auto", "llvm"):
        with torch.no_grad(), pytest.raises(ConfigError, match=re.escape(change)) as raised:
            unroll(cell(4, 3), X, state, backend=backend)
        assert line in str(raised.value)
        assert "test_trace.py, line" in str(raised.value)
    assert not any(s.any() for s in (state if isinstance(state, tuple) else (state,)))


def test_a_hook_in_a_step_is_told() -> None:
    with pytest.raises(BackendError, match="step puts a hook on a tensor; instead: a hook on the layer's input"):
        unroll(Hooks(4, 3), X, backend="llvm")


@pytest.mark.parametrize("cell", [Miscounts, Widens])
def test_a_step_of_the_wrong_shape_is_refused_by_every_backend(cell: type[Cell]) -> None:
    for backend in ("auto", "llvm", "reference"):
        with pytest.raises(ShapeError, match=r"its gates are u, n, its states h"):
            unroll(cell(4, 3), X, backend=backend)


def test_under_auto_it_runs_on_the_reference_with_one_warning() -> None:
    layer = tnn.Recurrent(Sorts(4, 3), layers=2)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            layer(X)
    told = [str(w.message) for w in said if "Sorts" in str(w.message)]
    assert len(told) == 1
    assert "return torch.sort(u, -1).values + n" in told[0]


def test_what_depends_on_parameters_alone_is_hoisted_and_differentiable() -> None:
    class Antisymmetric(Cell):
        gates = ("n",)

        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            weight = self.weight_hh - self.weight_hh.T
            return h + 0.1 * torch.tanh(x + self.linear(h, weight))

    cell = Antisymmetric(4, 3, dtype=torch.float64)
    traced = trace(cell, {}, {}, {})
    assert not [n for n in reachable(traced.states[0]) if n.op == "product" and len(n.inputs) > 2]
    x = X.double()
    found = []
    for backend in ("llvm", "reference"):
        y, _ = unroll(cell, x, backend=backend)
        found.append(torch.autograd.grad(y.square().sum(), list(cell.parameters()), allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_windows_of_parameters_are_hoisted_as_what_they_are() -> None:
    class Windows(Cell):
        gates = ("a", "b")

        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            a, b = self.weight_hh.chunk(2)
            skew = a - b.T
            bias = torch.tanh(self.bias_hh[3:]) * self.bias_ih[:3]
            return torch.tanh(x[:, :3] + self.linear(h, skew, bias) + self.linear(h, (a * 2)[:, 1:].T[:, :3].T @ b[:2]))

    cell = Windows(4, 3, dtype=torch.float64)
    found = []
    for backend in ("llvm", "reference"):
        y, _ = unroll(cell, X.double(), backend=backend)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(cell.parameters()))])
    torch.testing.assert_close(*found)


def test_a_buffer_of_another_dtype_is_read_as_what_it_is() -> None:
    class Decays(Cell):
        gates = ("n",)

        def __init__(self, *sizes: int) -> None:
            super().__init__(*sizes)
            self.register_buffer("rate", torch.linspace(-1, 1, self.hidden_size, dtype=torch.float64))
            self.register_buffer("count", torch.arange(self.hidden_size))

        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            (n,) = self.gate(x, h)
            return h * torch.sigmoid(self.rate) + torch.tanh(n + self.count)

    cell = Decays(4, 3)
    torch.testing.assert_close(unroll(cell, X, backend="llvm")[0], unroll(cell, X, backend="reference")[0])


def test_training_and_evaluating_in_turns_traces_once_each() -> None:
    cell = LSTM(4, 3)
    for _ in range(4):
        for mode in (True, False):
            unroll(cell.train(mode), X, backend="llvm")
    assert len(compiled._TRACED[cell].traces) <= 2


def test_a_plain_attribute_that_changes_is_seen() -> None:
    class Scaled(Cell):
        gates = ("n",)
        scale = 1.0

        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            (n,) = self.gate(x, h)
            return torch.tanh(self.scale * n)

    cell = Scaled(4, 3)
    for scale in (1.0, 0.5):
        cell.scale = scale
        torch.testing.assert_close(unroll(cell, X, backend="llvm")[0], unroll(cell, X, backend="reference")[0])
    del cell.scale
    torch.testing.assert_close(unroll(cell, X, backend="llvm")[0], unroll(cell, X, backend="reference")[0])


class Timed(Cell):
    gates = ("n",)
    inputs = ("elapsed",)

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.by_time = self.own("by_time", self.hidden_size, 1)
        self.scale = torch.tensor(1.0)

    def step(self, x: Tensor, h: Tensor, *, elapsed: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return torch.tanh(self.scale * n + self.linear(elapsed, self.by_time))


def test_a_tensor_that_is_no_parameter_may_be_replaced() -> None:
    cell, elapsed = Timed(4, 3), torch.rand(2, 3)
    for scale in (1.0, 0.5):
        cell.scale = torch.tensor(scale)
        found = [unroll(cell, X, backend=backend, elapsed=elapsed)[0] for backend in ("llvm", "reference")]
        torch.testing.assert_close(*found)


def test_padding_of_an_input_beside_x_reaches_no_gradient() -> None:
    cell, elapsed, lengths = Timed(4, 3), torch.rand(2, 3), torch.tensor([3, 1])
    elapsed[1, 1:] = torch.nan
    found = []
    for backend in ("llvm", "reference"):
        y, _ = unroll(cell, X, lengths=lengths, backend=backend, elapsed=elapsed)
        found.append(torch.autograd.grad(y.sum(), list(cell.parameters())))
    assert all(g.isfinite().all() for g in found[0])
    torch.testing.assert_close(*found)


def test_no_steps_leave_the_state_as_it_was() -> None:
    cell = LSTM(4, 3)
    start = (torch.randn(2, 3), torch.randn(2, 3))
    y, end = unroll(cell, X[:, :0], start, backend="llvm")
    assert y.shape == (2, 0, 3)
    torch.testing.assert_close(end, start)


def test_products_with_the_input_and_the_state_are_one() -> None:
    products = [n for n in reachable(trace(LSTM(4, 3), {}, {}, {}).states[1]) if n.op == "product"]
    assert len(products) == 3
    assert all(len(p.inputs) == 2 for p in products)


@pytest.mark.parametrize("cell", [Fires, Freezes, Hooks])
def test_gradients_that_a_step_makes_its_own_are_the_loops(cell) -> None:
    torch.manual_seed(0)
    layer = tnn.Recurrent(cell(4, 5))
    with pytest.warns(UserWarning, match="runs step by step in Python"):
        layer(X)[0].square().sum().backward()
    found = layer.cells[0].weight_ih.grad.clone()
    layer.zero_grad()
    layer.backend = "reference"
    layer(X)[0].square().sum().backward()
    assert torch.equal(found, layer.cells[0].weight_ih.grad)


class Chooses(Broken):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        low = torch.minimum(u, n) + torch.minimum(u, n * n) + F.logsigmoid(3 * n)
        return torch.tanh(low - torch.maximum(u, h) + F.elu(u) + F.selu(n))


def test_what_chooses_gives_its_gradient_to_what_was_chosen() -> None:
    torch.manual_seed(0)
    cell, x = Chooses(4, 5).double(), X.double()
    found = []
    for backend in ("llvm", "reference"):
        z = x.clone().requires_grad_()
        y = tnn.Recurrent(cell, backend=backend)(z)[0]
        found.append(torch.autograd.grad(y.sin().sum(), [z, *cell.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


class Bends(Cell):
    gates = ("n",)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return F.elu(n) + F.selu(n) + F.softplus(n) + F.silu(n) + F.gelu(n) + F.mish(n) + F.logsigmoid(n)


@pytest.mark.parametrize("large", [-1e3, -100.0, 0.0, 100.0, 1e3])
def test_activations_have_gradients_far_out(large) -> None:
    cell = Bends(1, 1)
    torch.nn.init.ones_(cell.weight_ih)
    found = []
    for backend in ("llvm", "reference"):
        z = torch.full((1, 1, 1), large, requires_grad=True)
        tnn.Recurrent(cell, backend=backend)(z)[0].sum().backward()
        found.append(z.grad)
    torch.testing.assert_close(*found)


def test_tracing_keeps_nothing_for_gradients_and_tells_nobody() -> None:
    told = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: told.append(t) or t, lambda t: t):
        trace(LSTM(4, 3), {}, {}, {})
    assert not told
    with torch.autograd.graph.disable_saved_tensors_hooks("not now"):
        trace(LSTM(4, 3), {}, {}, {})
