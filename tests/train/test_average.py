"""NT-ASGD: plain descent until the figure stalls, then the mean of all weights since, which is judged and kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_loop import Linear
from test_recovery import Model, Shuffled
from torch import Tensor

from tidegate.train.average import AveragedSGD, averages, has_stalled
from tidegate.train.events import Event, Step
from tidegate.train.loop import TrainResult, fit
from tidegate.train.optim import make_optimizer
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings


@pytest.mark.parametrize(
    ("values", "stalled"),
    [
        ([], False),
        ([1.0, 2.0, 3.0], False),  # three before it, as many as may go by
        ([1.0, 2.0, 3.0, 1.5], True),
        ([1.0, 2.0, 3.0, 1.0], False),
        ([3.0, 1.0, 2.0, 2.0], False),  # better than what lies more than two back
        ([math.nan, 1.0, 2.0, 2.0], False),
        ([1.0, 2.0, 3.0, math.nan], True),
    ],
)
def test_stalled_is_worse_than_the_best_of_long_ago(values: list[float], stalled: bool) -> None:
    assert has_stalled(values, 2) == stalled


def test_steps_are_sgds_and_the_average_is_the_mean_of_all_weights_since() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    settings = TrainSettings(optimizer="nt_asgd", lr=0.1, weight_decay=0.01)
    optimizer, peer = (
        make_optimizer(ours, settings),
        torch.optim.SGD([{"params": [theirs.weight], "weight_decay": 0.01}, {"params": [theirs.bias]}], lr=0.1),
    )
    assert isinstance(optimizer, AveragedSGD)
    passed: list[Tensor] = []
    for step in range(9):
        if step in (4, 6):
            optimizer.begin()  # once is enough
        if step >= 4:
            passed.append(ours.weight.detach().clone())
        for model, each in ((ours, optimizer), (theirs, peer)):
            each.zero_grad()
            model(torch.full((1, 3), 1.0 + step)).sin().sum().backward()
            each.step()
        torch.testing.assert_close(ours.weight, theirs.weight)
    passed.append(ours.weight.detach().clone())
    with averages(optimizer):
        torch.testing.assert_close(ours.weight, torch.stack(passed).mean(0))
    assert torch.equal(ours.weight, passed[-1])


ODD = (3.0, 5.0, 4.0, 4.0, 3.0, 9.0)
"""Higher is better: the fourth is below the second, and more than one came between."""


def train(observer: Any = None, run: Path | None = None, *, resume: bool = False, **more: Any) -> tuple[Any, Any]:
    seed_everything(1)
    model = Model(ODD)
    chosen = {"epochs": 6, "lr": 0.05, "device": "cpu", "optimizer": "nt_asgd", "plateau_epochs": 1, "monitor": "odd"}
    settings = TrainSettings(**{**chosen, "checkpoint_every_seconds": 1e-9, **more})
    observers = [observer] if observer else []
    result = fit(model, Shuffled(), Shuffled(), settings, observers=observers, run_dir=run, resume=resume)
    return model, result


@pytest.mark.parametrize("restore", [True, False])
def test_what_is_judged_and_kept_are_the_averages(restore: bool) -> None:
    weights: dict[int, list[Tensor]] = {}
    judged: list[Tensor] = []
    holder: list[Model] = []

    class Watched(Model):
        def forward(self, batch: Any) -> Tensor:
            now = self.layers[0].weight.detach().clone()
            if not self.training and not (judged and torch.equal(judged[-1], now)):
                judged.append(now)
            return super().forward(batch)

    def observer(event: Event) -> None:
        if isinstance(event, Step):
            weights.setdefault(event.epoch, []).append(holder[0].layers[0].weight.detach().clone())

    seed_everything(1)
    holder.append(Watched(ODD))
    settings = TrainSettings(
        epochs=6, lr=0.05, device="cpu", optimizer="nt_asgd", plateau_epochs=1, monitor="odd", restore_best=restore
    )
    result: TrainResult = fit(holder[0], Shuffled(), Shuffled(), settings, observers=[observer])
    begun = next(n for n in range(1, 7) if has_stalled([-v for v in ODD[:n]], 1)) - 1
    assert begun == 3
    assert len(judged) == 6
    for epoch in range(begun + 1):
        assert torch.equal(judged[epoch], weights[epoch][-1])
    for epoch in range(begun + 1, 6):
        since = [weights[begun][-1]] + [w for later in range(begun + 1, epoch + 1) for w in weights[later]]
        torch.testing.assert_close(judged[epoch], torch.stack(since).mean(0))
        assert not torch.equal(judged[epoch], weights[epoch][-1])
    assert result.best_epoch == result.kept_epoch == 5
    assert torch.equal(holder[0].layers[0].weight, judged[5])


@pytest.mark.parametrize("at", [7, 19, 26, 31])
def test_a_killed_run_ends_where_it_would_have(tmp_path: Path, at: int) -> None:
    class KilledError(Exception):
        pass

    seen = 0

    def dying(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Step)
        if seen == at and isinstance(event, Step):
            raise KilledError

    for figure in ("odd", "loss"):
        seen, folder = 0, tmp_path / figure
        folder.mkdir()
        whole, _ = train(monitor=figure)
        with pytest.raises(KilledError):
            train(dying, folder, monitor=figure)
        seed_everything(1)
        model = Model(ODD[(at - 1) // Shuffled.steps :])
        settings = TrainSettings(
            epochs=6, lr=0.05, device="cpu", optimizer="nt_asgd", plateau_epochs=1, monitor=figure,
            checkpoint_every_seconds=1e-9,
        )  # fmt: skip
        fit(model, Shuffled(), Shuffled(), settings, run_dir=folder, resume=True)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_other_optimizers_are_left_alone() -> None:
    model = Linear()
    optimizer = make_optimizer(model, TrainSettings())
    before = model.first.detach().clone()
    with averages(optimizer):
        assert torch.equal(model.first, before)
