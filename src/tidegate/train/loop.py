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

from tidegate.errors import ConfigError, DataError, TidegateError
from tidegate.files import canonical_json, sha256
from tidegate.train.average import AveragedSGD, averages, begin_averages
from tidegate.train.carry import Carry
from tidegate.train.checkpoint import Checkpointer, Progress, copied
from tidegate.train.clip import clip_gradients
from tidegate.train.evaluation import evaluate
from tidegate.train.events import Announcer, EpochEnd, Observer, Step, TrainEnd, TrainStart
from tidegate.train.optim import make_optimizer, plateau_factor, rate_factor, set_rates
from tidegate.train.parallel import make_accelerator
from tidegate.train.precision import Precision
from tidegate.train.regularise import make_regulariser
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
    """What happened: one row per epoch, the metrics of the epoch whose weights are kept, and why it ended.

    `best_epoch` is None where the monitored figure was never a number.
    """

    history: list[dict[str, Any]]
    metrics: dict[str, float]
    best_epoch: int | None
    kept_epoch: int
    reason: str


class _Trainer:
    def __init__(self, model: nn.Module, settings: TrainSettings, validated: bool, observers: Sequence[Observer]):
        self.settings, self.sign = settings, _sign(model, settings.monitor, validated)
        self.accelerator = make_accelerator(settings.device)
        self.device = self.accelerator.device
        self.model: Any = model.to(self.device)
        self.prepared = self.accelerator.prepare_model(model)
        self.optimizer = make_optimizer(model, settings)
        self.precision = Precision(settings.precision, self.device)
        self.regulariser = make_regulariser(model, settings)
        self.announcer = Announcer(observers)
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.grad_norm: Tensor | None = None
        self.carry = Carry(model)
        self.weights = list(model.parameters())

    def train_epoch(self, loader: LoaderLike, checkpointer: Checkpointer | None) -> float:
        """Run the rest of the current epoch and return its mean loss."""
        progress, settings = self.progress, self.settings
        total = settings.epochs * loader.steps
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        loss_sum = torch.tensor(progress.loss_sum, dtype=precise, device=self.device)
        count = torch.tensor(progress.count, device=self.device)
        saved = time.monotonic()
        factor = plateau_factor(progress.values, settings) if settings.schedule == "plateau" else 1.0
        self.model.train()
        for batch in loader.batches(progress.epoch, progress.step):
            at = progress.epoch * loader.steps + progress.step
            # A longer window of a text takes a longer step.
            progress.share = getattr(batch, "share", 1.0)
            set_rates(self.optimizer, factor * progress.share * rate_factor(at, total, settings))
            loss, n = self.step(batch if self.device.type == "cpu" else batch.to(self.device))
            loss_sum += loss
            count += n
            self.announcer.tell(Step(progress.epoch, progress.step))
            progress.step += 1
            if progress.step % CHECK_EVERY_STEPS == 0:
                self.refuse_loss(float(loss_sum))
            if checkpointer and time.monotonic() - saved > settings.checkpoint_every_seconds:
                progress.loss_sum, progress.count = float(loss_sum), int(count)
                self.refuse_loss(progress.loss_sum)
                self.refuse_weights()
                checkpointer.save(self.model, self.optimizer, progress, self.best, self.carry.state)
                saved = time.monotonic()
        self.refuse_loss(float(loss_sum))
        self.refuse_weights()
        if not int(count) and self.precision.skipped:
            raise self._diverged("a finite loss", "none in fp16")
        if not int(count):
            raise DataError(
                f"training epoch {progress.epoch + 1}",
                expected="targets to learn from",
                got="only missing ones" if progress.step else "no batches",
                hint="give rows whose target is known",
            )
        progress.step, progress.loss_sum, progress.count = 0, 0.0, 0
        return float(loss_sum) / int(count)

    def step(self, batch: Any) -> tuple[Tensor, Tensor | int]:
        """Do one optimizer step on the mean loss; return the sum of losses and their count."""
        before = None if getattr(batch, "begins", True) else self.carry.state
        with self.precision.running(), self.regulariser.watching():
            prediction = self.carry(self.prepared, batch)
        loss, n = self.model.loss(batch, self.precision.full(prediction))
        self.optimizer.zero_grad(set_to_none=True)
        mean = self.regulariser(loss / (n.clamp(min=1) if isinstance(n, Tensor) else max(n, 1)))
        self.accelerator.backward(self.precision.scaled(mean))
        self.precision.unscale(self.optimizer)
        self.grad_norm = clip_gradients(self.weights, self.settings, self.progress.norms)
        taken = self.precision.step(self.optimizer)
        self.progress.scaling = self.precision.state
        if not taken and not bool(loss.isfinite()):
            self.carry.state = before
            return torch.zeros_like(loss), 0
        return loss.detach(), n

    def refuse_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged("a finite loss", str(loss))

    def refuse_weights(self) -> None:
        """Raise where a weight is not finite (a gradient can be so under a finite loss): none is ever saved or kept."""
        for name, weight in self.model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise self._diverged("finite weights", f"{name} with values that are not")

    def _diverged(self, expected: str, got: str) -> TidegateError:
        return TidegateError(
            f"training epoch {self.progress.epoch + 1}, at or before step {self.progress.step}",
            expected=expected,
            got=got,
            hint=f"a lower learning rate than {self.settings.lr:g}, or clip_norm=1.0",
        )

    def judge(self, train_loss: float, metrics: dict[str, float], seconds: float) -> None:
        """Record the epoch, keep its weights if they are the best so far, and decide whether to go on."""
        progress, settings = self.progress, self.settings
        value = self.sign * (metrics or {"loss": train_loss})[settings.monitor]
        progress.values.append(value)
        # A figure that is not a number (no positives yet, say) is never the best.
        best = value < (math.inf if progress.best_value is None else progress.best_value)
        if best:
            progress.best_value, progress.best_epoch, self.best = value, progress.epoch, copied(self.model)
        rate = float(self.optimizer.param_groups[0]["lr"]) / progress.share
        row = {"epoch": progress.epoch, "train_loss": train_loss, "lr": rate}
        row |= {"skipped_steps": self.precision.skipped} if progress.scaling else {}
        progress.history.append(row | {f"valid_{k}": v for k, v in metrics.items()})
        norm = None if self.grad_norm is None else float(self.grad_norm)
        self.announcer.tell(EpochEnd(progress.epoch, train_loss, MappingProxyType(metrics), rate, norm, seconds, best))
        waited = progress.epoch - (-1 if progress.best_epoch is None else progress.best_epoch)
        if settings.patience is not None and waited >= settings.patience:
            progress.reason = f"no better {settings.monitor} for {settings.patience} epochs"
        progress.epoch += 1
        if progress.epoch >= settings.epochs:
            progress.reason = progress.reason or f"all {settings.epochs} epochs done"
        if self.announcer.stop is not None:
            progress.reason = self.announcer.stop.reason

    def keep(self) -> int:
        """Leave the model with the weights it is to have, and return the epoch they are of."""
        best = self.progress.best_epoch
        if not self.settings.restore_best or self.best is None or best is None:
            if isinstance(self.optimizer, AveragedSGD):
                self.optimizer.exchange()
            return self.progress.epoch - 1
        self.model.load_state_dict(self.best)
        return best


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
    goes on from there and ends (on the CPU) bit for bit where it would have ended. Random numbers are drawn from the
    state the caller left. A loss or a weight that is not finite is an error, and is never saved.
    """
    trainer = _Trainer(model, settings, valid is not None, observers)
    digest = sha256(canonical_json(settings.model_dump(mode="json", exclude={"checkpoint_every_seconds"})))
    checkpointer = Checkpointer(run_dir, digest) if run_dir else None
    if resume and checkpointer and (state := checkpointer.restore(model, trainer.optimizer)):
        trainer.progress, trainer.best, carried = state
        trainer.carry.state = carried and tuple(each.to(trainer.device) for each in carried)
        trainer.precision.state = trainer.progress.scaling
    elif checkpointer:
        checkpointer.clear()
    progress, announcer = trainer.progress, trainer.announcer
    try:
        announcer.tell(TrainStart(progress.epoch, settings.epochs, train.steps))
        while progress.reason is None:
            start = time.monotonic()
            train_loss = trainer.train_epoch(train, checkpointer)
            doing = f"validating after epoch {progress.epoch + 1}"
            with averages(trainer.optimizer):
                metrics = evaluate(model, valid, doing)[0] if valid is not None else {}
                trainer.judge(train_loss, metrics, time.monotonic() - start)
            begin_averages(trainer.optimizer, progress.values, settings.plateau_epochs)
            if checkpointer:
                checkpointer.save(model, trainer.optimizer, progress, trainer.best, trainer.carry.state)
        kept = trainer.keep()
    except BaseException as error:  # noqa: BLE001 - it is raised again, whatever the observers do
        # Observers that hold the terminal must let it go, whatever ended the training.
        end = TrainEnd(progress.epoch, progress.best_epoch, None, type(error).__name__, complete=False)
        try:
            announcer.end(end)
        finally:
            raise error
    announcer.end(TrainEnd(progress.epoch, progress.best_epoch, kept, progress.reason))
    figures = {k.removeprefix("valid_"): v for k, v in progress.history[kept].items() if k.startswith("valid_")}
    return TrainResult(progress.history, figures, progress.best_epoch, kept, progress.reason)


def _sign(model: Any, monitor: str, validated: bool) -> int:
    """Return 1 where a lower `monitor` is better and -1 where a higher one is; an unknown figure is a `ConfigError`."""
    if monitor == "loss":
        return 1
    better = model.metrics().better if validated else {}
    if monitor not in better:
        raise ConfigError(
            "choosing what to monitor",
            expected=f"one of {sorted(['loss', *better])}",
            got=repr(monitor),
            hint="monitor='loss'",
        )
    return 1 if better[monitor] == "lower" else -1
