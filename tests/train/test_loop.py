"""The loop (B4, B6): exact resume, best weights, sums and counts, clipping, events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tidegate.errors import ArtifactError, ConfigError, TidegateError
from tidegate.train.checkpoint import Checkpointer
from tidegate.train.events import EpochEnd, Event, Step, Stop, TrainEnd
from tidegate.train.loop import TrainResult, fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings


@dataclass(frozen=True)
class Pair:
    x: Tensor
    y: Tensor

    def to(self, device: Any) -> Pair:
        return Pair(self.x.to(device), self.y.to(device))


class Pairs:
    """A noisy linear map in batches; shuffled by epoch, from any step on."""

    def __init__(self, batch_size: int = 8, count: int = 40) -> None:
        random = np.random.default_rng(0)
        self.x = torch.tensor(random.normal(size=(count, 3)), dtype=torch.float32)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1
        self.batch_size = batch_size

    @property
    def steps(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Pair]:
        order = torch.tensor(np.random.default_rng([1, epoch]).permutation(len(self.x)))
        for chosen in order.split(self.batch_size)[start:]:
            yield Pair(self.x[chosen], self.y[chosen])


class Sums:
    better: ClassVar = {"mae": "lower"}

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, batch: Pair, prediction: Tensor) -> None:
        self.total += float((prediction - batch.y).abs().sum())
        self.count += len(batch.y)

    def compute(self) -> dict[str, float]:
        return {"mae": self.total / self.count}


class Linear(nn.Module):
    """Linear with dropout, so that a resumed run must also restore the random state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.3), nn.Tanh(), nn.Linear(16, 1))

    def gate_blocks(self) -> dict[str, int]:
        return {"first": 4}

    @property
    def first(self) -> nn.Parameter:
        return self.layers[0].weight

    def forward(self, batch: Pair) -> Tensor:
        return self.layers(batch.x)

    def loss(self, batch: Pair, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return (prediction - batch.y).square().sum(), torch.tensor(len(batch.y))

    def metrics(self) -> Sums:
        return Sums()


class KilledError(Exception):
    """Stands for a kill between two steps."""


def train(run_dir: Path | None, *, resume: bool = False, die_at: int | None = None, **settings: Any) -> Linear:
    seed_everything(3)
    model = Linear()
    seen = 0

    def observer(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Step)
        if seen == die_at:
            raise KilledError

    chosen = {"epochs": 4, "lr": 0.02, "device": "cpu", "checkpoint_every_seconds": 1e-9, "clip_norm": 1.0, **settings}
    fit(model, Pairs(), Pairs(16), TrainSettings(**chosen), observers=[observer], run_dir=run_dir, resume=resume)
    return model


@pytest.mark.parametrize(
    "settings",
    [
        *({"optimizer": name} for name in ("adamw", "adam", "sgd", "momentum", "rmsprop", "muon")),
        {"optimizer": "nt_asgd", "plateau_epochs": 1},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"clip_quantile": 0.3, "clip_norm": None},
    ],
    ids=str,
)
def test_a_run_killed_at_any_step_resumes_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings = {"schedule": "cosine", **settings}
    whole = train(None, **settings).state_dict()
    for at in range(1, 21, 3):
        run = tmp_path / str(at)
        run.mkdir()
        with pytest.raises(KilledError):
            train(run, die_at=at, **settings)
        resumed = train(run, resume=True, **settings).state_dict()
        assert all(torch.equal(whole[k], resumed[k]) for k in whole), f"killed at step {at}"


def test_metrics_lines_match_history(tmp_path: Path) -> None:
    train(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert '"epoch": 3' in lines[3]


@pytest.mark.parametrize("name", ["state-*.safetensors", "state-*.json", "latest.json"])
def test_a_flipped_byte_in_a_checkpoint_is_named(tmp_path: Path, name: str) -> None:
    train(tmp_path)
    path = next((tmp_path / "checkpoint").glob(name))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=path.name):
        train(tmp_path, resume=True)


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    train(tmp_path)
    with pytest.raises(ArtifactError, match="settings it was started with"):
        train(tmp_path, resume=True, lr=0.5)


def test_only_the_newest_checkpoint_is_kept(tmp_path: Path) -> None:
    train(tmp_path)
    assert len(list((tmp_path / "checkpoint").iterdir())) == 3


def run_fit(model: nn.Module, observer: Any = None, valid: Pairs | None = None, **settings: Any) -> TrainResult:
    chosen = TrainSettings(**{"device": "cpu", "lr": 0.02, **settings})
    return fit(model, Pairs(), valid or Pairs(16), chosen, observers=[observer] if observer else [])


def test_evaluation_does_not_depend_on_batch_size() -> None:
    seed_everything(0)
    model = Linear()
    start = model.state_dict()
    figures = []
    for size in (1, 7, 40):
        model.load_state_dict({k: v.clone() for k, v in start.items()})
        figures.append(run_fit(model, valid=Pairs(size), epochs=1, lr=1e-12).metrics)
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert figures[0] == pytest.approx(figures[2], rel=1e-5)


def test_the_best_weights_are_kept_and_patience_ends_training() -> None:
    seed_everything(0)
    events: list[Event] = []
    model = Linear()
    result = run_fit(model, events.append, epochs=200, lr=0.5, patience=3, optimizer="sgd", clip_norm=1.0)
    ends = [e for e in events if isinstance(e, EpochEnd)]
    losses = [e.metrics["loss"] for e in ends]
    assert result.best_epoch == int(np.argmin(losses))
    assert len(ends) == result.best_epoch + 1 + 3
    assert result.metrics["loss"] == min(losses)
    assert isinstance(events[-1], TrainEnd)
    assert "no better loss for 3 epochs" in result.reason


def test_observers_read_and_may_only_ask_to_stop() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Step(0, 0).epoch = 3  # type: ignore[misc]
    result = run_fit(Linear(), lambda e: Stop("enough") if isinstance(e, EpochEnd) else None, epochs=50)
    assert result.reason == "enough"
    assert len(result.history) == 1


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(TidegateError, match="finite loss"):
        run_fit(Linear(), epochs=5, lr=1e30, optimizer="sgd")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        run_fit(Linear(), optimizer="adammw")
    with pytest.raises(ConfigError, match=r"choosing what to monitor.*'loss', 'mae'"):
        run_fit(Linear(), pytest.fail, monitor="accuracy")


def test_a_run_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path, "").restore(Linear(), torch.optim.SGD(Linear().parameters())) is None
    fresh, resumed = train(None).state_dict(), train(tmp_path, resume=True).state_dict()
    assert all(torch.equal(fresh[k], resumed[k]) for k in fresh)
