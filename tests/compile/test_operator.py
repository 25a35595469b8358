"""Compiled kernels as torch operators: shapes known without running, and no second derivative."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

from tidegate.cells import GRU, GRUD, LSTM, Cell, Elman, GRUResetBefore
from tidegate.compile import compiled, operator
from tidegate.compile.loop import Loop
from tidegate.compile.native import Native
from tidegate.compile.select import BACKENDS, unroll
from tidegate.errors import BackendError
from tidegate.nn import Recurrent

from .records import forget_records


def kernel_of(cell: Cell) -> Native:
    """Return the one kernel that a cell has run on."""
    ((_, native),) = compiled._TRACED[cell].traces.values()
    return native


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("kind", [LSTM, GRUD])
def test_the_reverse_is_an_operator_as_torch_has_them(kind: type[Cell], inputs: bool) -> None:
    cell, x = kind(4, 3), torch.randn(2, 5, 4)
    given = {name: torch.rand(2, 5, 1 if name == "elapsed" else 4).round() for name in cell.inputs}
    unroll(cell, x, backend="llvm", **given)
    ((traced, native),) = compiled._TRACED[cell].traces.values()
    values = [v.detach() for v in traced.hoisted.values(cell, {})]
    vectors, matrices = ([values[n] for n in numbers] for numbers in (traced.vectors, traced.matrices))
    steps = [each.transpose(0, 1).contiguous() for each in (x, *(given[name] for name in native.names[1:]))]
    states = [torch.zeros(2, size) for size in native.program.states]
    *_, saved = torch.ops.tidegate.unroll(native.key, steps, [], states, [], vectors, matrices, None, None, True)
    arguments = (steps, [], vectors, matrices, saved, None, None, inputs)
    torch.library.opcheck(
        torch.ops.tidegate.unroll_backward.default,
        (native.key, torch.randn(5, 2, 3), [None] * len(states), *arguments),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_second_derivative_names_the_backend_that_has_it() -> None:
    cell, x = LSTM(4, 3), torch.randn(2, 3, 4, requires_grad=True)
    y, _ = unroll(cell, x, backend="llvm")
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="backend='reference'"):
        torch.autograd.grad(g.square().sum(), x)


@pytest.mark.parametrize("recompute", [False, True])
def test_second_derivative_of_the_first_state_alone_too(recompute: bool) -> None:
    layer = Recurrent(GRU(4, 3), backend="llvm", recompute=recompute).requires_grad_(False)
    state = torch.randn(1, 2, 3, requires_grad=True)
    (g,) = torch.autograd.grad(layer(torch.randn(2, 9, 4), state)[0].sum(), state, create_graph=True)
    with pytest.raises(BackendError, match="backend='reference'"):
        torch.autograd.grad(g.sum() + state.square().sum(), state)


def test_fake_tensors_have_the_shapes_of_real_ones() -> None:
    cell, x = LSTM(4, 3), torch.randn(2, 5, 4)
    unroll(cell, x, backend="llvm")
    key = kernel_of(cell).key
    arguments = (key, [x.transpose(0, 1).contiguous()], [], [torch.zeros(2, 3), torch.zeros(2, 3)], [],
                 [cell.bias_ih.detach(), cell.bias_hh.detach()], [cell.weight_ih.detach(), cell.weight_hh.detach()],
                 None, None)  # fmt: skip
    for save in (False, True):
        torch.library.opcheck(
            torch.ops.tidegate.unroll.default, (*arguments, save),
            test_utils=("test_schema", "test_faketensor"),
        )  # fmt: skip


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "scan"])
def test_outputs_may_be_changed_in_place_before_the_reverse(backend: str) -> None:
    cell, x = GRU(4, 3), torch.randn(2, 5, 4)
    found = []
    for change in (lambda y: y.add_(1.0), lambda y: y + 1.0):
        y, _ = unroll(cell, x, backend=backend)
        found.append(torch.autograd.grad(change(y).square().sum(), list(cell.parameters())))
    torch.testing.assert_close(*found)


class Shifted(Cell):
    """A cell whose product's gradient is its input's: h' = tanh(x + h U)."""

    gates = ("n",)

    def project(self, x: Tensor) -> Tensor:
        return x

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (n,) = self.gate(x, h)
        return torch.tanh(n)


@pytest.fixture
def reverses(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bool]]:
    """What kind of reverse is asked for from now on, by whichever kernel."""
    forget_records()
    found: list[dict[str, bool]] = []
    reverse = Native.reverse

    def noting(self: Native, **kind: bool) -> Loop:
        found.append(kind)
        return reverse(self, **kind)

    monkeypatch.setattr(Native, "reverse", noting)
    return found


FEW, OWN, MANY = (5, 9, 6, torch.float32), (70, 40, 33, torch.float32), (70, 60, 96, torch.float64)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("through_torch", [False, True])
@pytest.mark.parametrize("size", [FEW, OWN, MANY], ids=["few", "own sums", "in stretches"])
@pytest.mark.parametrize("kind", [GRUResetBefore, LSTM, GRUD, Shifted])
def test_gradients_are_the_same_whether_that_of_the_input_is_asked_for(
    kind: type[Cell], size: tuple[int, int, int, torch.dtype], through_torch: bool, ragged: bool,
    reverses: list[dict[str, bool]], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if through_torch:
        monkeypatch.setattr(compiled, "unroll_now", lambda native, *given: operator.unroll_as_node(native.key, *given))
    torch.manual_seed(0)
    rows, steps, width, dtype = size
    cell = kind(width, width, dtype=dtype)
    layer = Recurrent(cell, backend="llvm")
    x, dy = torch.randn(rows, steps, width, dtype=dtype), torch.randn(rows, steps, width, dtype=dtype)
    given: dict[str, Any] = {
        name: torch.rand(rows, steps, 1 if name == "elapsed" else width, dtype=dtype).round() for name in cell.inputs
    }
    if ragged:
        given |= {"lengths": torch.randint(0, steps + 1, (rows,)), "resets": torch.rand(rows, steps) < 0.1}
    weights = [p for p in cell.parameters() if kind is not Shifted or p is cell.weight_hh]
    found, asked = [], []
    for leaf in (x, x.clone().requires_grad_()):
        reverses.clear()
        for _ in range(2):
            y, _ = layer(leaf, **given)
            gradients = torch.autograd.grad(y, [*weights, *([leaf] if leaf.requires_grad else [])], dy)
        found.append(gradients[: len(weights)])
        asked.append({kind["inputs"] for kind in reverses})
    for without, with_it in zip(*found, strict=True):
        assert torch.equal(without, with_it)
    if kind is Shifted:
        assert set.union(*asked) == {True}
    else:
        assert asked == [{False}, {True}]
    assert all(each["own"] is (size is OWN) for each in reverses)


def test_kernels_live_as_long_as_the_cell_or_a_gradient_that_needs_them() -> None:
    cell = GRU(4, 23)  # of a size that no other test has: kernels are shared
    weight = cell.weight_ih
    y = unroll(cell, torch.randn(2, 5, 4), backend="llvm")[0]
    key = kernel_of(cell).key
    compiled._RECENT.clear()
    del cell
    gc.collect()
    assert key in operator.NATIVES
    y.sum().backward()
    assert weight.grad is not None
    del y
    gc.collect()
    assert key not in operator.NATIVES


def test_cells_whose_steps_are_alike_share_a_kernel_and_no_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 5, 4)

    def kernel(cell: Cell) -> Native:
        y = unroll(cell, x.to(cell.weight_ih.dtype), backend="llvm")[0]
        torch.testing.assert_close(y, unroll(cell, x.to(cell.weight_ih.dtype), backend="reference")[0])
        return kernel_of(cell)

    first = kernel(GRU(4, 3))
    assert kernel(GRU(4, 3)) is first
    others = [kernel(GRU(4, 3, bias=False)), kernel(GRU(4, 3).double()), kernel(GRU(4, 7)), kernel(LSTM(4, 3))]
    others += [kernel(Elman(4, 3, activation=name)) for name in ("tanh", "relu", "leaky_relu")]
    monkeypatch.setenv("TIDEGATE_ISA", "generic")
    others.append(kernel(GRU(4, 3)))
    wide = GRU(4, 40)  # of several panels, which are of another width on the other kind of machine
    others.append(kernel(wide))
    monkeypatch.delenv("TIDEGATE_ISA")
    others += [kernel(GRU(4, 40)), kernel(GRU(4, 41))]
    assert len({id(each) for each in (first, *others)}) == len(others) + 1
