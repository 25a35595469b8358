"""The loop equals the one anybody would write by hand, bit for bit; the weights left are those of the best epoch."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from test_loop import Linear, Pair, Pairs
from torch import Tensor, nn

from tidegate.errors import TidegateError
from tidegate.train.events import EpochEnd, Event, Step
from tidegate.train.loop import fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings

EPOCHS = 6
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.7, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.7, weight_decay=0.0, fused=True),
}
SCHEDULES = {
    "constant": lambda _: 1.0,
    "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * step / (EPOCHS * Pairs().steps))),
    "linear": lambda step: 1 - step / (EPOCHS * Pairs().steps),
}


def by_hand(model: Linear, optimizer: str, schedule: str) -> tuple[int, dict[str, Tensor]]:
    """Train and return the best epoch with its weights."""
    steps = OPTIMIZERS[optimizer](model.parameters())
    rates = torch.optim.lr_scheduler.LambdaLR(steps, SCHEDULES[schedule])
    best, kept = (math.inf, -1), {}
    for epoch in range(EPOCHS):
        model.train()
        for batch in Pairs().batches(epoch):
            steps.zero_grad()
            (model.loss(batch, model(batch))[0] / len(batch.y)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05, foreach=True)
            steps.step()
            rates.step()
        model.eval()
        with torch.no_grad():
            loss = sum(float(model.loss(b, model(b))[0]) for b in Pairs(16).batches()) / 40
        if loss < best[0]:
            best, kept = (loss, epoch), copy.deepcopy(model.state_dict())
    return best[1], kept


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_loop_is_the_one_written_by_hand(optimizer: str, schedule: str) -> None:
    seed_everything(0)
    ours = Linear()
    theirs = copy.deepcopy(ours)
    chosen = TrainSettings(epochs=EPOCHS, lr=0.7, optimizer=optimizer, schedule=schedule, clip_norm=0.05, device="cpu")
    with torch.random.fork_rng():
        best, kept = by_hand(theirs, optimizer, schedule)
    result = fit(ours, Pairs(), Pairs(16), chosen)
    assert result.best_epoch == result.kept_epoch == best
    assert all(torch.equal(value, kept[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("restore", [True, False])
def test_the_weights_left_are_those_of_the_epoch_named(restore: bool) -> None:
    seed_everything(0)
    model, copies = Linear(), list[dict[str, Tensor]]()
    bests: list[int] = []

    def observer(event: Event) -> None:
        if isinstance(event, EpochEnd):
            copies.append(copy.deepcopy(model.state_dict()))
            bests.extend([event.epoch] if event.best else [])

    settings = TrainSettings(epochs=8, lr=2.0, optimizer="sgd", clip_norm=1.0, device="cpu", restore_best=restore)
    result = fit(model, Pairs(), Pairs(16), settings, observers=[observer])
    assert bests[-1] < 7, "the best epoch must not be the last, or this shows nothing"
    assert result.best_epoch == bests[-1]
    assert result.kept_epoch == (bests[-1] if restore else 7)
    assert result.metrics["loss"] == result.history[result.kept_epoch]["valid_loss"]
    assert all(torch.equal(v, copies[result.kept_epoch][k]) for k, v in model.state_dict().items())
    assert not all(torch.equal(copies[bests[-1]][k], copies[7][k]) for k in copies[7])


def test_a_diverging_loss_ends_the_epoch_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate.train.loop.CHECK_EVERY_STEPS", 3)
    steps: list[Step] = []

    class Diverging(Linear):
        def loss(self, batch: Pair, prediction: Tensor) -> tuple[Tensor, Tensor]:
            total, count = super().loss(batch, prediction)
            return total * (math.inf if len(steps) >= 3 else 1), count

    def observer(event: Event) -> None:
        steps.extend([event] if isinstance(event, Step) else [])

    with pytest.raises(TidegateError, match=r"training epoch 1, at or before step 6.*finite loss"):
        fit(Diverging(), Pairs(1), None, TrainSettings(epochs=1, device="cpu"), observers=[observer])
    assert len(steps) == 6


def test_groups_with_rates_of_their_own_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate.train import optim

    made: list[torch.optim.Optimizer] = []

    def grouped(groups: Any, settings: TrainSettings, *_: Any) -> torch.optim.Optimizer:
        made.append(torch.optim.SGD([{**g, "lr": settings.lr * 10**i} for i, g in enumerate(groups)], lr=settings.lr))
        return made[0]

    monkeypatch.setattr(optim, "OPTIMIZERS", {"grouped": grouped})
    fit(Linear(), Pairs(), None, TrainSettings(epochs=1, lr=0.01, optimizer="grouped", schedule="linear", device="cpu"))
    # The last of 5 steps has a fifth of the rate left.
    assert [g["lr"] for g in made[0].param_groups] == pytest.approx([0.002, 0.02])
