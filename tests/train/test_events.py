"""Observers: whoever was told that training began is told that it ended, whatever another one raises."""

from __future__ import annotations

import io
import sys

import pytest
import rich.progress
from test_recovery import BoomError, Model, Shuffled, train

from tidegate.errors import ConfigError, DataError
from tidegate.train.events import EpochEnd, Event, Step, TrainEnd, TrainStart
from tidegate.train.loop import fit
from tidegate.train.progress import kept_weights, progress
from tidegate.train.settings import TrainSettings


def raising(kind: type, message: str) -> object:
    def observer(event: Event) -> None:
        if isinstance(event, kind):
            raise BoomError(message)

    return observer


def run(*observers: object, model: Model | None = None, **settings: object) -> None:
    chosen = TrainSettings(**{"epochs": 2, "device": "cpu", **settings})
    fit(model or Model(), Shuffled(), Shuffled(), chosen, observers=observers)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [TrainStart, Step, EpochEnd])
def test_the_first_observer_is_told_the_end_when_a_second_raises(kind: type) -> None:
    seen: list[Event] = []
    with pytest.raises(BoomError, match="second"):
        run(seen.append, raising(kind, "second"))
    assert isinstance(seen[0], TrainStart)
    assert seen[-1] == TrainEnd(0, seen[-1].best_epoch, None, "BoomError", complete=False)  # type: ignore[union-attr]
    assert sum(isinstance(event, TrainEnd) for event in seen) == 1


def test_an_observer_that_fails_at_the_end_hides_no_error_and_starves_no_other() -> None:
    first, last = list[Event](), list[Event]()
    with pytest.raises(BoomError, match="real"):
        run(first.append, raising(TrainEnd, "late"), raising(Step, "real"), last.append)
    assert isinstance(first[-1], TrainEnd)
    assert isinstance(last[-1], TrainEnd)


def test_an_observer_that_fails_after_a_whole_training_is_heard_once_all_were_told() -> None:
    seen: list[Event] = []
    with pytest.raises(BoomError, match="late"):
        run(raising(TrainEnd, "late"), seen.append)
    assert [e for e in seen if isinstance(e, TrainEnd)] == [TrainEnd(2, 1, 1, "all 2 epochs done")]


@pytest.mark.parametrize("resumed", [0, 2])
def test_the_bar_advances_by_one_a_step_from_where_training_stands(
    resumed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = progress(quiet=False)[0]
    monkeypatch.setattr(bar.bar, "start", lambda: None)  # type: ignore[attr-defined]
    bar(TrainStart(resumed, 5, 6))
    task = bar.bar.tasks[0]  # type: ignore[attr-defined]
    assert (task.completed, task.total) == (6 * resumed, 30)
    for step in range(4):
        bar(Step(resumed, step))
    assert task.completed == 6 * resumed + 4
    bar(EpochEnd(resumed, 0.5, {"loss": 0.25}, 0.1, None, 1.0, True))
    assert task.description == f"epoch {resumed + 1}"
    assert "loss 0.25" in task.fields["figures"]


def test_the_bar_is_not_left_alive_by_an_observer_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    bar = progress(quiet=False)[0]
    live: rich.progress.Progress = bar.bar  # type: ignore[attr-defined]
    with pytest.raises(BoomError):
        run(bar, raising(TrainStart, "second"))
    assert not live.live.is_started


def test_the_line_at_the_end_names_the_epoch_whose_weights_are_kept() -> None:
    assert kept_weights(2, 2) == "the weights are those of epoch 3, the best"
    assert kept_weights(2, 4) == "the weights are those of epoch 5, the last; the best was epoch 3"
    assert (
        kept_weights(None, 4) == "the weights are those of epoch 5, the last: the monitored figure was never a number"
    )


def test_a_figure_that_is_never_a_number_has_no_best_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    model, nan = Model((float("nan"),) * 9), TrainSettings(epochs=9, patience=3, device="cpu", monitor="odd")
    result = fit(model, Shuffled(), Shuffled(), nan, observers=progress(quiet=False))
    assert (result.best_epoch, result.kept_epoch, len(result.history)) == (None, 2, 3)
    assert "epoch 3, the last: the monitored figure was never a number" in capsys.readouterr().err


@pytest.mark.parametrize(("better", "best"), [("lower", 1), ("higher", 2)])
def test_the_accumulator_says_which_way_is_better(better: str, best: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_recovery.Figures.better", {"odd": better})
    settings = TrainSettings(epochs=3, device="cpu", monitor="odd")
    assert fit(Model((2.0, 1.0, 3.0)), Shuffled(), Shuffled(), settings).best_epoch == best


def test_what_to_monitor_is_checked_before_the_first_step() -> None:
    with pytest.raises(ConfigError, match=r"expected one of \['loss', 'odd'\]; got 'accuracy'"):
        train(observer=pytest.fail, monitor="accuracy")
    with pytest.raises(ConfigError, match=r"expected one of \['loss'\]; got 'odd'"):
        fit(Model(), Shuffled(), None, TrainSettings(monitor="odd", device="cpu"))


class Uncounted(Model):
    def loss(self, batch: object, prediction: object) -> tuple[object, int]:  # type: ignore[override]
        return super().loss(batch, prediction)[0] * 0, 0  # type: ignore[arg-type]


class Empty(Shuffled):
    steps = 0

    def batches(self, epoch: int, start: int = 0) -> object:  # type: ignore[override]
        return iter(())


def test_training_without_any_target_is_an_error() -> None:
    with pytest.raises(DataError, match="training epoch 1; expected targets to learn from; got only missing ones"):
        fit(Uncounted(), Shuffled(), None, TrainSettings(epochs=1, device="cpu"))
    with pytest.raises(DataError, match="got no batches"):
        fit(Model(), Empty(), None, TrainSettings(epochs=1, device="cpu"))  # type: ignore[arg-type]
