"""B2: Muon on the matrices of gates, AdamW on the rest."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tidegate import nn as tidegate_nn
from tidegate.cells import LSTM
from tidegate.nn import Recurrent
from tidegate.train.muon import orthogonal
from tidegate.train.optim import OPTIMIZERS, make_optimizer
from tidegate.train.settings import TrainSettings

SETTINGS = TrainSettings(optimizer="muon", lr=0.01, weight_decay=0.1, momentum=0.95)


class Model(nn.Module):
    def __init__(self, recurrent: nn.Module) -> None:
        super().__init__()
        self.recurrent, self.head = recurrent, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0])


def test_every_optimizer_is_tried_somewhere() -> None:
    assert set(OPTIMIZERS) == {"sgd", "momentum", "rmsprop", "adam", "adamw", "muon", "nt_asgd"}


@pytest.mark.parametrize("shape", [(1, 6, 6), (4, 6, 3), (3, 2, 9)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    found = orthogonal(matrices)
    values = torch.linalg.svdvals(found)
    assert ((values > 0.6) & (values < 1.3)).all()
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    assert (found - u @ v).norm() < 0.4 * (u @ v).norm()


@pytest.mark.parametrize("lent", [False, True])
def test_a_step_is_its_definition(lent: bool) -> None:
    torch.manual_seed(0)
    model = Model(tidegate_nn.LSTM(3, 6, batch_first=True) if lent else Recurrent(LSTM(3, 6))).double()
    optimizer = make_optimizer(model, SETTINGS)
    names = {p: name for name, p in model.named_parameters()}
    gates = {p for p in names if "weight_ih" in names[p] or "weight_hh" in names[p]}
    expected = {p: p.detach().clone() for p in names}
    moments = {p: torch.zeros_like(p) for p in gates}
    oracle_model = copy.deepcopy(model)
    others = [p for n, p in oracle_model.named_parameters() if "weight_ih" not in n and "weight_hh" not in n]
    oracle = torch.optim.AdamW(
        [
            {"params": [p for p in others if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=0.01,
    )
    for _ in range(3):
        x = torch.randn(4, 5, 3, dtype=torch.float64)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        for p, q in zip(model.parameters(), oracle_model.parameters(), strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone()
            if p in gates:
                moments[p] = 0.95 * moments[p] + p.grad
                update = p.grad + 0.95 * moments[p]
                rows = [orthogonal(block[None])[0] * 0.2 * 6**0.5 for block in update.chunk(4)]
                expected[p] = expected[p] * (1 - 0.01 * 0.1) - 0.01 * torch.cat(rows)
        optimizer.step()
        oracle.step()
    for p, q in zip(model.parameters(), oracle_model.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected[p] if p in gates else q.detach())


def test_its_state_is_saved_and_loaded() -> None:
    torch.manual_seed(0)
    model = Model(Recurrent(LSTM(3, 6)))
    x = torch.randn(4, 5, 3)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    optimizer = make_optimizer(model, SETTINGS)
    steps(model, optimizer, 2)
    other = Model(Recurrent(LSTM(3, 6)))
    other.load_state_dict(model.state_dict())
    resumed = make_optimizer(other, SETTINGS)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied = copy.deepcopy((model, optimizer))
    steps(model, optimizer, 3)
    steps(other, resumed, 3)
    steps(*copied, 3)
    assert torch.equal(copied[0].head.weight, model.head.weight)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
