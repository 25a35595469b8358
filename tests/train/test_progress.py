"""Progress on plain output: a line an epoch, and a sign of life within a long one (F8)."""

from __future__ import annotations

import pytest

from tidegate.train import progress as shown
from tidegate.train.events import EpochEnd, Step, TrainEnd, TrainStart
from tidegate.train.progress import progress


def test_long_epochs_are_not_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    (observer,) = progress(quiet=False)
    observer(TrainStart(0, 2, 1500))
    for step, now[0] in enumerate((5.0, 19.0, 21.0, 30.0, 42.0)):
        observer(Step(0, 400 + step))
    observer(EpochEnd(0, 0.5, {"loss": 0.25}, 1e-3, None, 42.0, True))
    observer(TrainEnd(1, 0, 0, "all 1 epochs done"))
    assert capsys.readouterr().err.splitlines() == [
        "epoch   1  step 403 of 1,500",
        "epoch   1  step 405 of 1,500",
        "epoch   1  train loss 0.5000  valid loss 0.25  42.0 s  *",
        "done: all 1 epochs done; the weights are those of epoch 1, the best",
    ]


def test_quiet_is_silent() -> None:
    assert progress(quiet=True) == ()
