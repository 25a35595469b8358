"""Optimizers equal torch's; schedules take the values their definitions give."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from tidegate.errors import ConfigError
from tidegate.train.optim import make_optimizer, plateau_factor, rate_factor, set_rates
from tidegate.train.settings import TrainSettings

TORCH: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.03),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.03, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.03),
    "adam": lambda p: torch.optim.Adam(p, lr=0.03),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.03),
}


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), nn.LayerNorm(7), nn.Linear(7, 2)).double()


@pytest.mark.parametrize("name", list(TORCH))
def test_optimizer_equals_torch_and_spares_vectors_from_decay(name: str) -> None:
    ours, theirs = layers(), layers()
    wide = [p for p in theirs.parameters() if p.dim() > 1]
    narrow = [p for p in theirs.parameters() if p.dim() == 1]
    oracle = TORCH[name]([{"params": wide, "weight_decay": 0.1}, {"params": narrow, "weight_decay": 0.0}])
    optimizer = make_optimizer(ours, TrainSettings(optimizer=name, lr=0.03, weight_decay=0.1))
    x = torch.randn(5, 3, dtype=torch.float64)
    for model, steps in ((ours, optimizer), (theirs, oracle)):
        for _ in range(5):
            steps.zero_grad()
            model(x).square().sum().backward()
            steps.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-9, atol=1e-12)


def rates(total: int, **settings: Any) -> list[float]:
    chosen = TrainSettings(lr=0.03, **settings)
    return [rate_factor(step, total, chosen) for step in range(total)]


def test_warmup_rises_to_the_peak_and_the_schedule_follows() -> None:
    assert rates(6, warmup_steps=4, schedule="linear") == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.5])


def test_schedules_take_their_values() -> None:
    assert rates(4, schedule="constant") == [1.0] * 4
    assert rates(4, schedule="cosine") == pytest.approx([(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)])
    assert rates(6, schedule="step") == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_plateau_cuts_when_torch_does() -> None:
    settings = TrainSettings(lr=1.0, schedule="plateau", lr_factor=0.5, plateau_epochs=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.0)
    values = [3.0, 2.0, 2.0, 2.5, 1.0, 1.5, 0.9, 0.9, 0.9, 0.9, 0.9, float("nan")]
    for seen, value in enumerate(values, 1):
        oracle.step(value)
        assert plateau_factor(values[:seen], settings) == optimizer.param_groups[0]["lr"], f"after {seen} epochs"


def test_every_group_keeps_its_own_rate() -> None:
    optimizer = make_optimizer(layers(), TrainSettings(optimizer="sgd", lr=0.03))
    optimizer.param_groups[1]["initial_lr"] = 0.3
    for factor in (0.5, 0.25):
        set_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.03 * factor, 0.3 * factor])


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        rates(3, schedule="cosin")


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"lr": math.inf}, {"epochs": 0}, {"momentum": 1.0}, {"rate": 0.1}])
def test_settings_refuse_what_cannot_train(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainSettings(**wrong)


@pytest.mark.parametrize("total", [1, 2, 3, 10, 200])
def test_one_cycle_is_torchs(total: int) -> None:
    weight = nn.Parameter(torch.zeros(1))
    steps = torch.optim.SGD([weight], lr=1.0)
    found = rates(total, schedule="one_cycle")
    if total < 10:
        assert all(0 < rate <= 1 for rate in found)
        return
    torchs = torch.optim.lr_scheduler.OneCycleLR(steps, max_lr=1.0, total_steps=total, cycle_momentum=False)
    for rate in found:
        assert rate == pytest.approx(steps.param_groups[0]["lr"], rel=1e-6, abs=1e-9)
        steps.step()
        if rate is not found[-1]:
            torchs.step()


def test_inverse_sqrt_is_its_definition() -> None:
    found = rates(50, schedule="inverse_sqrt", warmup_steps=10)
    assert found[9] == pytest.approx(1.0)
    for step in range(10, 50):
        assert found[step] == pytest.approx(min((step) ** -0.5, step * 10**-1.5) / 10**-0.5)
