"""Progress for people: a live bar on a terminal, plain lines elsewhere, nothing when quiet. Written to stderr."""

from __future__ import annotations

import sys
import time

from tidegate.train.events import EpochEnd, Event, Observer, Step, TrainEnd, TrainStart

SILENCE_SECONDS = 20.0


def progress(quiet: bool) -> tuple[Observer, ...]:
    """Return the observer that suits standard error."""
    if quiet:
        return ()
    return (_Bar() if sys.stderr.isatty() else _Lines(),)


class _Lines:
    """A line an epoch, and one now and then within a long epoch."""

    def __init__(self) -> None:
        self.steps, self.spoken = 0, time.monotonic()

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainStart):
            self.steps = event.steps
        elif isinstance(event, Step):
            if time.monotonic() - self.spoken > SILENCE_SECONDS:
                self._say(f"epoch {event.epoch + 1:3d}  step {event.step + 1:,} of {self.steps:,}")
        elif isinstance(event, EpochEnd):
            self._say(_row(event))
        elif event.complete:
            self._say(_end(event))

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self.spoken = time.monotonic()


def _row(event: EpochEnd) -> str:
    figures = "  ".join(f"{k} {v:.4g}" for k, v in list(event.metrics.items())[:3])
    return f"epoch {event.epoch + 1:3d}  train loss {event.train_loss:.4f}  valid {figures}  {event.seconds:.1f} s" + (
        "  *" if event.best else ""
    )


def _end(event: TrainEnd) -> str:
    return f"done: {event.reason}; {kept_weights(event.best_epoch, event.kept_epoch)}"


def kept_weights(best: int | None, kept: int | None) -> str:
    """Say which epoch the weights are of, and which was the best."""
    if kept is None:
        return "no weights are kept"
    of = f"the weights are those of epoch {kept + 1}"
    if best is None:
        return f"{of}, the last: the monitored figure was never a number"
    return f"{of}, the best" if kept == best else f"{of}, the last; the best was epoch {best + 1}"


class _Bar:
    """rich's bar, redrawn at most 4 times a second: a bar drawn every step doubles the cost of a small model."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn as Bar
        from rich.progress import Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            Bar(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            refresh_per_second=4,
            transient=True,
        )

    def __call__(self, event: Event) -> None:
        if isinstance(event, TrainStart):
            self.task = self.bar.add_task(
                "training", total=event.epochs * event.steps, figures="", completed=event.epoch * event.steps
            )
            self.bar.start()
        elif isinstance(event, Step):
            self.bar.advance(self.task)
        elif isinstance(event, EpochEnd):
            self.bar.update(self.task, description=f"epoch {event.epoch + 1}", figures=_row(event).split("  ", 2)[2])
        elif isinstance(event, TrainEnd):
            self.bar.stop()
            if event.complete:
                self.console.print(_end(event))
