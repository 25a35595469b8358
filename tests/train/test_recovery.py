"""What the loop survives: kills by signal, stale folders, odd figures, integer counts, observers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from tidegate.errors import ArtifactError, TidegateError
from tidegate.train.events import EpochEnd, Event, Step, TrainEnd
from tidegate.train.loop import fit
from tidegate.train.progress import progress
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings


@dataclass(frozen=True)
class Rows:
    x: Tensor

    def to(self, device: Any) -> Rows:
        return Rows(self.x.to(device))


class Shuffled:
    steps = 6

    def batches(self, epoch: int, start: int = 0) -> Iterator[Rows]:
        x = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        order = torch.randperm(24, generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(4)[start:]:
            yield Rows(x[chosen])


class Figures:
    better: ClassVar = {"odd": "higher"}

    def __init__(self, values: Iterator[float]) -> None:
        self.values = values

    def update(self, batch: Rows, prediction: Tensor) -> None: ...

    def compute(self) -> dict[str, float]:
        return {"odd": next(self.values, 0.0)}


class Model(nn.Module):
    """Predicts the sum of three numbers; counts are plain integers, and dropout draws from the random state."""

    def __init__(self, odd: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 1))
        self.odd = iter(odd)

    def forward(self, batch: Rows) -> Tensor:
        return self.layers(batch.x)

    def loss(self, batch: Rows, prediction: Tensor) -> tuple[Tensor, int]:
        return (prediction - batch.x.sum(1, keepdim=True)).square().sum(), len(batch.x)

    def metrics(self) -> Figures:
        return Figures(self.odd)


def train(run: Path | None = None, *, observer: Any = None, resume: bool = False, **settings: Any) -> Model:
    seed_everything(1)
    model = Model()
    chosen = TrainSettings(**{"epochs": 5, "lr": 0.01, "device": "cpu", "checkpoint_every_seconds": 1e-9, **settings})
    fit(model, Shuffled(), Shuffled(), chosen, observers=[observer] if observer else [], run_dir=run, resume=resume)
    return model


def equal(a: Model, b: Model) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


class BoomError(Exception):
    pass


def dying_at(count: int) -> Any:
    seen = 0

    def observer(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Step)
        if isinstance(event, Step) and seen == count:
            raise BoomError

    return observer


PLATEAU = {"schedule": "plateau", "plateau_epochs": 1, "lr_factor": 0.5, "monitor": "odd"}


def test_plateau_cuts_in_the_loop_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    rates: list[float] = []
    whole = train(observer=lambda e: rates.append(e.lr) if isinstance(e, EpochEnd) else None, **PLATEAU)
    assert rates == pytest.approx([0.01, 0.01, 0.005, 0.0025, 0.00125])
    with pytest.raises(BoomError):
        train(tmp_path, observer=dying_at(21), **PLATEAU)
    assert equal(train(tmp_path, resume=True, **PLATEAU), whole)


def test_a_new_run_forgets_the_checkpoint_of_an_old_one(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(BoomError):
        train(tmp_path, observer=dying_at(1), epochs=1)
    assert list((tmp_path / "checkpoint").iterdir()) == []
    assert equal(train(tmp_path, resume=True, epochs=1), train(epochs=1))


def test_another_model_does_not_resume(tmp_path: Path) -> None:
    train(tmp_path)
    model = Model()
    model.layers[0] = nn.Linear(3, 9)
    settings = TrainSettings(epochs=5, lr=0.01, device="cpu", checkpoint_every_seconds=1.0)
    with pytest.raises(ArtifactError, match=r"the model it was started with.*size mismatch"):
        fit(model, Shuffled(), Shuffled(), settings, run_dir=tmp_path, resume=True)


def test_a_figure_that_is_not_a_number_is_never_the_best() -> None:
    settings = TrainSettings(epochs=4, device="cpu", monitor="odd")
    result = fit(Model((float("nan"), 1.0, 3.0, 2.0)), Shuffled(), Shuffled(), settings)
    assert result.best_epoch == 2
    assert result.metrics["odd"] == 3.0


def test_training_without_validation_monitors_its_own_loss() -> None:
    result = fit(Model(), Shuffled(), None, TrainSettings(epochs=3, device="cpu"))
    losses = [row["train_loss"] for row in result.history]
    assert result.best_epoch == losses.index(min(losses))
    assert result.metrics == {}


def test_a_diverged_loss_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(TidegateError, match=r"training epoch 1, at or before step \d"):
        train(tmp_path, lr=1e30, optimizer="sgd", epochs=1)
    text = "".join(p.read_text() for p in (tmp_path / "checkpoint").glob("*.json"))
    assert "NaN" not in text
    assert "Infinity" not in text


def test_an_exception_still_ends_the_observers() -> None:
    events: list[Event] = []
    die = dying_at(3)

    def observer(event: Event) -> None:
        events.append(event)
        die(event)

    with pytest.raises(BoomError):
        train(observer=observer)
    assert events[-1] == TrainEnd(0, None, None, "BoomError", complete=False)


def test_an_observer_cannot_change_the_figures() -> None:
    def observer(event: Event) -> None:
        if isinstance(event, EpochEnd):
            event.metrics["loss"] = 0.0  # type: ignore[index]

    with pytest.raises(TypeError, match="does not support item assignment"):
        train(observer=observer)


def test_progress_is_one_line_an_epoch_on_stderr_and_silent_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    train(observer=progress(quiet=False)[0], epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[0] for line in err.splitlines()] == ["epoch", "epoch", "done:"]
    assert progress(quiet=True) == ()


def test_a_run_killed_by_signal_resumes_bit_for_bit(tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_recovery; test_recovery.endless(sys.argv[2])"
    child = subprocess.Popen([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)])
    try:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "checkpoint").glob("state-*"))) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert equal(train(tmp_path, resume=True, epochs=10), train(epochs=10))


def endless(folder: str) -> None:
    """Train 10 epochs slowly enough that the parent's kill comes in the middle."""
    train(Path(folder), epochs=10, observer=lambda _: time.sleep(0.02))
