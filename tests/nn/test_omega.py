"""Ω: the paper's equations with explicit Jacobians in float64, every cell of the catalogue, and what it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract.cases import beside
from tidegate.cells import CELLS, GRU, LSTM, Cell, ConvGRU, Elman
from tidegate.errors import ConfigError
from tidegate.nn import Recurrent, Regulariser
from tidegate.nn.omega import Recorder, omega

B, T, INPUTS, H = 3, 5, 2, 3


def elman(cell: Cell, x: Tensor, v: Tensor) -> Tensor:
    return torch.tanh(cell.weight_ih @ x + cell.bias_ih + cell.weight_hh @ v + cell.bias_hh)


def lstm(cell: Cell, x: Tensor, v: Tensor) -> Tensor:
    h, c = v.chunk(2)
    i, f, g, o = (cell.weight_ih @ x + cell.bias_ih + cell.weight_hh @ h + cell.bias_hh).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return torch.cat([o.sigmoid() * c.tanh(), c])


STEPS: dict[str, tuple[type[Cell], Callable[[Cell, Tensor, Tensor], Tensor], int]] = {
    "rnn": (Elman, elman, 1),
    "lstm": (LSTM, lstm, 2),
}


def target(outputs: Tensor) -> Tensor:
    return (outputs * torch.cos(torch.arange(outputs.numel(), dtype=outputs.dtype)).reshape(outputs.shape)).sin().sum()


def brute_force(cell: Cell, step: Any, count: int, x: Tensor, lengths: list[int]) -> Tensor:
    """Equations 9 and 10 row by row: states and ∂E/∂x_{t+1} are numbers, the step's Jacobian is written out."""
    states, given = [], torch.zeros(B, T, H, dtype=x.dtype)
    for b, length in enumerate(lengths):
        row = [torch.zeros(count * H, dtype=x.dtype)]
        for t in range(length):
            row.append(step(cell, x[b, t], row[-1]).detach())
            given[b, t] = row[-1][:H]
        states.append(row)
    given.requires_grad_()
    (direct,) = torch.autograd.grad(target(given), given)
    total = torch.zeros((), dtype=x.dtype)
    for b, length in enumerate(lengths):
        delta = torch.zeros(count * H, dtype=x.dtype)
        for t in reversed(range(length)):
            delta = delta + torch.cat([direct[b, t], delta.new_zeros((count - 1) * H)])
            jacobian = torch.func.jacrev(lambda v, b=b, t=t: step(cell, x[b, t], v))(states[b][t])
            total = total + ((delta @ jacobian).norm() / delta.norm() - 1) ** 2
            delta = (delta @ jacobian).detach()
    return total / B


def ours(layer: Recurrent, x: Tensor, lengths: Tensor | None, **inputs: Tensor) -> tuple[Tensor, Tensor]:
    layer.watch = recorder = Recorder()
    outputs, _ = layer(x, lengths=lengths, **inputs)
    layer.watch = None
    loss = target(outputs)
    return omega(recorder.runs, loss), loss


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("lengths", [[T] * B, [2, 0, T]], ids=["full", "ragged"])
def test_it_is_the_papers_and_so_is_its_gradient(name: str, lengths: list[int]) -> None:
    kind, step, count = STEPS[name]
    torch.manual_seed(0)
    cell = kind(INPUTS, H, dtype=torch.float64)
    x = torch.randn(B, T, INPUTS, dtype=torch.float64, requires_grad=True)
    expected = brute_force(cell, step, count, x.detach(), lengths)
    found, _ = ours(Recurrent(cell), x, torch.tensor(lengths))
    torch.testing.assert_close(found, expected)
    assert float(expected.detach()) > 0.01
    weights = list(cell.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(found, [*weights], retain_graph=True), torch.autograd.grad(expected, weights)
    )
    assert torch.autograd.grad(found, x, allow_unused=True)[0] is None


@pytest.mark.parametrize("name", list(CELLS))
def test_every_cell_has_one_and_padding_has_none(name: str) -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS[name](4, 4, dtype=torch.float64), bidirectional=True)
    x, lengths = torch.randn(3, 4, 4, dtype=torch.float64), torch.tensor([4, 0, 2])
    found, loss = ours(layer, x, lengths, **beside(layer.cells[0], x))
    hidden = x.clone()
    hidden[1], hidden[2, 2:] = float("nan"), float("nan")
    other, _ = ours(layer, hidden, lengths, **beside(layer.cells[0], hidden))
    assert found > 0
    assert torch.equal(other, found)
    given = torch.autograd.grad(found + loss, list(layer.parameters()), allow_unused=True)
    assert all(g.isfinite().all() for g in given if g is not None)


def test_tiny_gradients_count_as_any_and_none_as_nothing() -> None:
    torch.manual_seed(0)
    layer, x = Recurrent(GRU(INPUTS, H)), torch.randn(B, T, INPUTS)
    found = []
    for factor in (1.0, 1e-30, 0.0):
        layer.watch = recorder = Recorder()
        found.append(float(omega(recorder.runs, target(layer(x)[0]) * factor).detach()))
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == 0


def test_it_sees_the_noise_of_the_run() -> None:
    """With zoneout at 1 every state stands still: the Jacobian is the identity, and Ω 0."""
    layer, x = Recurrent(LSTM(INPUTS, H, zoneout=1.0)), torch.randn(B, T, INPUTS)
    layer.watch = recorder = Recorder()
    outputs, _ = layer(x, (torch.randn(1, B, H), torch.randn(1, B, H)))
    assert float(omega(recorder.runs, outputs.sum()).detach()) == pytest.approx(0, abs=1e-9)
    noisy, rows = Recurrent(GRU(INPUTS, H, variational_dropout=0.5, dropconnect=0.5)), torch.randn(B, T, INPUTS)
    assert ours(noisy, rows, torch.tensor([T, 0, 2]))[0] > 0


def test_batch_norm_is_refused() -> None:
    layer = Recurrent(GRU(INPUTS, H, batch_norm=1))
    regulariser = Regulariser(layer, omega=1.0)
    with pytest.raises(ConfigError, match=r"running GRU with omega.*got batch_norm=1"), regulariser.watching():
        layer(torch.randn(B, T, INPUTS))
    assert layer.watch is None


def test_frames_have_activations_to_regularise_and_no_omega() -> None:
    torch.manual_seed(0)
    layer, x = Recurrent(ConvGRU(1, 2, size=4)), torch.randn(B, T, 1, 4)
    regulariser = Regulariser(layer, activation_l2=2.0, activation_slowness=1.0)
    with regulariser.watching():
        y, _ = layer(x)
    expected = 2.0 * y.square().mean() + (y[:, 1:] - y[:, :-1]).square().mean()
    assert torch.allclose(regulariser(y.new_zeros(())), expected)
    regulariser = Regulariser(layer, omega=1.0)
    with pytest.raises(ConfigError, match=r"running ConvGRU with omega.*got a cell of frames"), regulariser.watching():
        layer(x)


class Order(nn.Module):
    """Which of two symbols came first, told at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Recurrent(Elman(3, 16))
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])[:, 0]


def temporal_order(rows: int, steps: int) -> tuple[Tensor, Tensor]:
    first = torch.randint(0, 2, (rows,))
    x = torch.zeros(rows, steps, 3)
    x[..., 2] = 1
    x[:, 1] = nn.functional.one_hot(first, 3).float()
    return x + 0.1 * torch.randn_like(x), first.float()


def test_training_with_it_moves_the_ratio_towards_one() -> None:
    kept = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = Order()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        for step in range(41):
            x, y = temporal_order(8, 12)
            regulariser = Regulariser(model, omega=1.0)
            with regulariser.watching():
                prediction = model(x)
            loss = nn.functional.binary_cross_entropy_with_logits(prediction, y)
            term = regulariser(loss) - loss
            if step in (0, 40):
                kept.append(float(term.detach()))
            optimizer.zero_grad()
            (loss + weight * term).backward()
            optimizer.step()
    plain, with_it = kept[1] / kept[0], kept[3] / kept[2]
    assert with_it < 0.5 < plain
