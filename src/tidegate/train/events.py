"""What the loop tells observers. Events are read-only; an observer may answer with `Stop`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainStart:
    """Training begins, or goes on, at `epoch` of `epochs`, with `steps` batches each."""

    epoch: int
    epochs: int
    steps: int


@dataclass(frozen=True)
class Step:
    """One optimizer step is done: `step` of `epoch`, both counted from 0."""

    epoch: int
    step: int


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done and evaluated. Losses are means; `grad_norm` is the last one before clipping, if clipped."""

    epoch: int
    train_loss: float
    metrics: Mapping[str, float]
    lr: float
    grad_norm: float | None
    seconds: float
    best: bool


@dataclass(frozen=True)
class TrainEnd:
    """Training is over, and why. `complete` is false when an exception ended it.

    `best_epoch` is None where the monitored figure was never a number. `kept_epoch` is the one whose weights the model
    was left with; None when an exception ended training.
    """

    epochs: int
    best_epoch: int | None
    kept_epoch: int | None
    reason: str
    complete: bool = True


@dataclass(frozen=True)
class Stop:
    """What an observer returns to end training after the current epoch."""

    reason: str


Event = TrainStart | Step | EpochEnd | TrainEnd
Observer = Callable[[Event], Stop | None]


@dataclass
class Announcer:
    """Hands events to observers and remembers the first wish to stop."""

    observers: Sequence[Observer] = field(default_factory=tuple)
    stop: Stop | None = None

    def tell(self, event: Event) -> None:
        for observer in self.observers:
            answer = observer(event)
            if isinstance(answer, Stop) and self.stop is None:
                self.stop = answer

    def end(self, event: TrainEnd) -> None:
        """Tell every observer that training is over, whatever another one raises; the last error is raised then."""
        with ExitStack() as everyone:
            for observer in reversed(self.observers):
                everyone.callback(observer, event)
