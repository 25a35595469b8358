"""Steps that put their pieces together in unusual ways: outputs and every gradient equal the reference's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.cells import Cell
from tidegate.compile import select
from tidegate.nn import Recurrent


class One(Cell):
    gates = ("a",)


class Two(Cell):
    gates = ("a", "b")


class MeanOfState(One):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x + h.mean(-1, keepdim=True))


class MeanOfInput(One):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x.mean(-1, keepdim=True)) + 0.1 * h


class MeanOfMean(One):
    """The gradient of one number goes through a sum to another sum, and to a product."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        inner = (self.recurrent("a", h) + h.mean(-1, keepdim=True)).sum(-1, keepdim=True)
        return torch.tanh(x + 0.1 * inner)


class LargestOfProduct(One):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x + torch.amax(self.recurrent("a", h), -1, keepdim=True))


class LargestOfSum(One):
    """What is largest is made again in reverse, and must be the same number."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        y = x * 0.7 + h * h * 0.3 + torch.tanh(h) * x
        return torch.tanh(y - torch.amax(y * y + x * h, -1, keepdim=True))


class GateUnread(Two):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        a, _ = self.gate(x, h)
        return torch.tanh(a)


class GateWithoutGradient(Two):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        a, b = self.gate(x, h)
        return torch.tanh(a) + b.detach()


class NormReadTwice(Two):
    """Windows of a normalised row that overlap, and units that are in none."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        a, b = self.gate(x, h)
        y = F.layer_norm(h, (h.shape[-1],))
        turned = torch.cat([y[:, 1:], y[:, :1]], -1)
        return torch.tanh(a + y[:, 1:2] * turned) * torch.sigmoid(b)


class NormInPart(One):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x + F.layer_norm(h, (h.shape[-1],))[:, 1:2])


class ProductOfMask(One):
    """With variational dropout, the second product is of a mask alone."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x + self.recurrent("a", h) + 0.5 * self.recurrent("a", 1.0))


STEPS: list[tuple[type[Cell], dict[str, Any]]] = [
    (MeanOfState, {}), (MeanOfInput, {}), (MeanOfMean, {}), (LargestOfProduct, {}), (LargestOfSum, {}),
    (GateUnread, {}), (GateUnread, {"layer_norm": True}), (GateUnread, {"rms_norm": True}),
    (GateWithoutGradient, {"layer_norm": True}), (NormReadTwice, {}), (NormInPart, {}),
    (ProductOfMask, {"variational_dropout": 0.3}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), STEPS)
@pytest.mark.parametrize(("rows", "dtype", "within"), [(3, torch.float64, 1e-12), (32, torch.float32, 2e-5)])
def test_gradients_are_the_references(
    kind: type[Cell], options: dict[str, Any], rows: int, dtype: torch.dtype, within: float
) -> None:
    torch.manual_seed(0)
    cell = kind(3, 8, dtype=dtype, **options)
    x, state = (torch.randn(rows, *size, dtype=dtype, requires_grad=True) for size in ((4, 3), (8,)))
    found: dict[str, list[Tensor]] = {}
    for backend in ("llvm", "reference"):
        torch.manual_seed(1)
        y, end = select.unroll(cell, x, state, backend=backend)
        assert isinstance(end, Tensor)
        weights = torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)
        leaves = [x, state, *cell.parameters()]
        given = torch.autograd.grad((y * weights).sum() + end.square().sum(), leaves, allow_unused=True)
        pairs = zip(given, leaves, strict=True)
        found[backend] = [y.detach(), end.detach(), *(torch.zeros_like(leaf) if g is None else g for g, leaf in pairs)]
    for mine, theirs in zip(found["llvm"], found["reference"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=within * max(1.0, float(theirs.abs().max())))


class Stepped(One):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(self.recurrent("a", h) + (x > 0).to(x.dtype))


def test_what_nothing_depends_on_smoothly_has_no_gradient_as_in_the_reference() -> None:
    for backend in ("llvm", "reference"):
        x = torch.randn(2, 3, 5, requires_grad=True)
        layer = Recurrent(Stepped(5, 4), backend=backend)
        (gradient,) = torch.autograd.grad(layer(x)[0].sum(), [x], allow_unused=True)
        assert gradient is None or not gradient.any()
        if gradient is not None:
            gradient.add_(1)  # memory of its own


class Applied(One):
    """A function of the state alone, and of what the step makes of it."""

    function: Any

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return 0.5 * type(self).function(self.recurrent("a", type(self).function(h)) + x)


def _far(value: float) -> Any:
    return lambda v: torch.log_softmax(v + value, -1)


CORNERS: dict[str, Any] = {
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardtanh of other bounds": lambda v: F.hardtanh(v, -2.0, 6.0),
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda v: v.clamp(-1, 3),
    "log_softmax, 1e4 off": _far(1e4),
    "log_softmax, 1e30 off": _far(1e30),
    "logsumexp of -inf": lambda v: torch.where(torch.logsumexp(v - torch.inf, -1, keepdim=True) < -1e30, v, 3 * v),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CORNERS)
def test_functions_are_the_references_at_their_corners_and_far_out(name: str, dtype: torch.dtype) -> None:
    kind = type("Applied", (Applied,), {"function": staticmethod(CORNERS[name])})
    cell = kind(8, 8, dtype=dtype, bias=False)
    state = torch.arange(16, dtype=dtype).reshape(2, 8).remainder(10).sub(3).requires_grad_()
    x = torch.arange(48, dtype=dtype).reshape(2, 3, 8).remainder(7).sub(3).requires_grad_()
    with torch.no_grad():
        cell.weight_ih.copy_(torch.eye(8))
        cell.weight_hh.copy_(torch.eye(8))
    found = []
    for backend in ("llvm", "reference"):
        y, _ = select.unroll(cell, x, state, backend=backend)
        found.append([y.detach(), *torch.autograd.grad(y.sum(), [x, state, *cell.parameters()])])
    # Torch's 1/6 in hardsigmoid's derivative is one of float32.
    within = 1e-6 if dtype is torch.float32 or name == "hardsigmoid" else 1e-12
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=within, atol=within)
