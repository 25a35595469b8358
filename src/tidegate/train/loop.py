"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tidegate.errors import ConfigError, TidegateError
from tidegate.files import canonical_json, sha256
from tidegate.train.checkpoint import Checkpointer, Progress, copied
from tidegate.train.clip import clip_gradients
from tidegate.train.evaluation import evaluate
from tidegate.train.events import Announcer, EpochEnd, Observer, Step, TrainEnd, TrainStart
from tidegate.train.optim import learning_rate, make_optimizer, plateau_factor
from tidegate.train.parallel import make_accelerator
from tidegate.train.settings import TrainSettings

# Often enough to stop early, rarely enough that waiting for the device costs nothing.
CHECK_EVERY_STEPS = 50


class BatchLike(Protocol):
    """A batch that can move to a device."""

    def to(self, device: Any) -> Any: ...


class LoaderLike(Protocol):
    """Batches of an epoch, the same for the same (seed, epoch), from any step on."""

    @property
    def steps(self) -> int: ...
    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


@dataclass(frozen=True)
class TrainResult:
    """What happened: one row per epoch, the metrics of the epoch whose weights are kept, and why it ended."""

    history: list[dict[str, Any]]
    metrics: dict[str, float]
    best_epoch: int
    reason: str


class _Trainer:
    def __init__(self, model: nn.Module, settings: TrainSettings, observers: Sequence[Observer]) -> None:
        self.settings = settings
        self.accelerator = make_accelerator(settings.device)
        self.raw = model
        self.optimizer: Optimizer = make_optimizer(model.to(self.accelerator.device), settings)
        # accelerate wraps the optimizer only to skip steps under gradient accumulation and mixed precision.
        self.model = self.accelerator.prepare_model(model)
        self.announcer = Announcer(observers)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.grad_norm: Tensor | None = None
        self.weights = list(model.parameters())

    def train_epoch(self, loader: LoaderLike, checkpointer: Checkpointer | None) -> float:
        """Run the rest of the current epoch and return its mean loss."""
        progress, settings = self.progress, self.settings
        total = settings.epochs * loader.steps
        device = self.accelerator.device
        loss_sum = torch.tensor(progress.loss_sum, dtype=torch.float64, device=device)
        count = torch.tensor(progress.count, device=device)
        saved = time.monotonic()
        factor = plateau_factor(progress.values, settings) if settings.schedule == "plateau" else 1.0
        self.model.train()
        for batch in loader.batches(progress.epoch, progress.step):
            rate = factor * learning_rate(progress.epoch * loader.steps + progress.step, total, settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            there = batch if device.type == "cpu" else batch.to(device)
            loss, n = self.raw.loss(there, self.model(there))  # type: ignore[operator]
            self.optimizer.zero_grad(set_to_none=True)
            self.accelerator.backward(loss / (n.clamp(min=1) if isinstance(n, Tensor) else max(n, 1)))
            self.grad_norm = clip_gradients(self.weights, settings.clip_norm, settings.clip_value)
            self.optimizer.step()
            loss_sum += loss.detach()
            count += n
            self.announcer.tell(Step(progress.epoch, progress.step))
            progress.step += 1
            if progress.step % CHECK_EVERY_STEPS == 0:
                _refuse_non_finite(float(loss_sum), progress.epoch, progress.step, settings)
            if checkpointer and time.monotonic() - saved > settings.checkpoint_every_seconds:
                progress.loss_sum, progress.count = float(loss_sum), int(count)
                _refuse_non_finite(progress.loss_sum, progress.epoch, progress.step, settings)
                checkpointer.save(self.raw, self.optimizer, progress, self.best)
                saved = time.monotonic()
        _refuse_non_finite(float(loss_sum), progress.epoch, progress.step, settings)
        progress.step, progress.loss_sum, progress.count = 0, 0.0, 0
        return float(loss_sum) / max(int(count), 1)

    def judge(self, train_loss: float, metrics: dict[str, float], seconds: float, rate: float) -> None:
        """Record the epoch, keep its weights if they are the best so far, and decide whether to go on."""
        progress, settings = self.progress, self.settings
        figures = metrics or {"loss": train_loss}
        if settings.monitor not in figures:
            raise ConfigError(
                "choosing what to monitor",
                expected=f"one of {sorted(figures)}",
                got=repr(settings.monitor),
                hint="monitor='loss'",
            )
        value = figures[settings.monitor] * (1 if _lower_is_better(settings.monitor) else -1)
        progress.values.append(value)
        # A figure that is not a number (no positives yet, say) is never the best.
        best = value < (math.inf if progress.best_value is None else progress.best_value)
        if best:
            progress.best_value, progress.best_epoch, self.best = value, progress.epoch, copied(self.raw)
        progress.history.append(
            {
                "epoch": progress.epoch,
                "train_loss": train_loss,
                "lr": rate,
                **{f"valid_{k}": v for k, v in metrics.items()},
            }
        )
        norm = None if self.grad_norm is None else float(self.grad_norm)
        self.announcer.tell(EpochEnd(progress.epoch, train_loss, MappingProxyType(metrics), rate, norm, seconds, best))
        if settings.patience is not None and progress.epoch - progress.best_epoch >= settings.patience:
            progress.reason = f"no better {settings.monitor} for {settings.patience} epochs"
        progress.epoch += 1
        if progress.epoch >= settings.epochs:
            progress.reason = progress.reason or f"all {settings.epochs} epochs done"
        if self.announcer.stop is not None:
            progress.reason = self.announcer.stop.reason


def fit(
    model: nn.Module,
    train: LoaderLike,
    valid: LoaderLike | None,
    settings: TrainSettings,
    *,
    observers: Sequence[Observer] = (),
    run_dir: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train `model` in place and leave it with the weights of the best epoch.

    `model(batch)` predicts, `model.loss(batch, prediction)` returns (sum, count), `model.metrics()` an accumulator.
    With `run_dir` the state is kept in `checkpoint/` and one line an epoch in `metrics.jsonl`; with `resume` training
    goes on from there and ends (on the CPU) bit for bit where it would have ended. A non-finite loss is an error.
    """
    trainer = _Trainer(model, settings, observers)
    digest = sha256(canonical_json(settings.model_dump(mode="json", exclude={"checkpoint_every_seconds"})))
    checkpointer = Checkpointer(run_dir, digest) if run_dir else None
    if resume and checkpointer and (state := checkpointer.restore(model, trainer.optimizer)):
        trainer.progress, trainer.best = state
    elif checkpointer:
        checkpointer.clear()
    progress = trainer.progress
    trainer.announcer.tell(TrainStart(progress.epoch, settings.epochs, train.steps))
    try:
        while progress.reason is None:
            start = time.monotonic()
            train_loss = trainer.train_epoch(train, checkpointer)
            metrics = (
                evaluate(model, valid, f"validating after epoch {progress.epoch + 1}")[0] if valid is not None else {}
            )
            rate = float(trainer.optimizer.param_groups[0]["lr"])
            trainer.judge(train_loss, metrics, time.monotonic() - start, rate)
            if checkpointer:
                checkpointer.save(model, trainer.optimizer, progress, trainer.best)
    except BaseException as error:
        # Observers that hold the terminal must let it go, whatever ended the training.
        trainer.announcer.tell(TrainEnd(progress.epoch, progress.best_epoch, type(error).__name__, complete=False))
        raise
    if settings.restore_best and trainer.best is not None:
        model.load_state_dict(trainer.best)
    trainer.announcer.tell(TrainEnd(progress.epoch, progress.best_epoch, progress.reason))
    kept = progress.history[progress.best_epoch if settings.restore_best and trainer.best is not None else -1]
    figures = {k.removeprefix("valid_"): v for k, v in kept.items() if k.startswith("valid_")}
    return TrainResult(progress.history, figures, progress.best_epoch, progress.reason)


def _lower_is_better(figure: str) -> bool:
    return figure.rsplit("_", 1)[-1] in ("loss", "mae", "mse", "rmse")


def _refuse_non_finite(loss: float, epoch: int, step: int, settings: TrainSettings) -> None:
    if not math.isfinite(loss):
        raise TidegateError(
            f"training epoch {epoch + 1}, at or before step {step}",
            expected="a finite loss",
            got=str(loss),
            hint=f"a lower learning rate than {settings.lr:g}, or clip_norm=1.0",
        )
