"""What the trained network says about the validation part: counts, numbers and forecasts to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tidegate.data.loader import Loader
from tidegate.tasks.base import target_of
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Network
from tidegate.tasks.regression import ErrorSums, IntervalSums, Regression
from tidegate.train.evaluation import predictions


def numbers(network: Network, loader: Loader, task: Regression) -> tuple[np.ndarray, np.ndarray, IntervalSums]:
    """Return truths and predictions [N, C] in the targets' own units, and the task's sums over them."""
    mean, std = np.array(task.mean), np.array(task.std)
    truth, guess, found = [], [], task.metrics()
    for batch, prediction in predictions(network, loader):
        point = task.reading.point(task.read(prediction))
        truth.append(_numpy(target_of(batch)) * std + mean)
        guess.append(_numpy(point) * std + mean)
        found.update(batch, prediction)
    return np.concatenate(truth), np.concatenate(guess), found


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.double().cpu().numpy())


@dataclass(frozen=True)
class Example:
    """One forecast in the targets' units: `past` [L, C], `truth` [S, C], `guess` [S, C, 1 + Q]."""

    window: int
    past: np.ndarray
    truth: np.ndarray
    guess: np.ndarray


class Errors:
    """Mean absolute errors in the targets' units: by step ahead and over all steps."""

    def __init__(self, task: Forecasting) -> None:
        self.shape = (task.horizon, len(task.targets))
        self.all = ErrorSums(task.mean, task.std)
        self.each = ErrorSums(task.mean * task.horizon, task.std * task.horizon)

    def add(self, guess: Tensor, truth: Tensor) -> None:
        """Add scaled forecasts and truths [B, S, C]; a missing one of either counts nothing."""
        truth = truth.masked_fill(guess.isnan(), torch.nan)
        self.all.add(guess, truth)
        self.each.add(guess.flatten(1), truth.flatten(1))

    def by_step(self) -> np.ndarray:
        return self.each.per_target()["mae"].reshape(self.shape)

    def by_target(self) -> np.ndarray:
        return self.all.per_target()["mae"]


@dataclass(frozen=True)
class Forecasts:
    """A few examples; the errors of the model and of repeating the last known value."""

    examples: list[Example]
    model: Errors
    naive: Errors
    windows: int


def forecasts(network: Network, loader: Loader, task: Forecasting, examples: int = 4) -> Forecasts:
    """Run every validation window; keep `examples` of them, evenly spread."""
    mean, std = np.array(task.mean), np.array(task.std)
    total, done = loader.items, 0
    wanted = set(np.linspace(0, total - 1, min(examples, total)).round().astype(int).tolist())
    kept: list[Example] = []
    model, naive = Errors(task), Errors(task)
    for batch, prediction in predictions(network, loader):
        if batch.history is None:
            raise RuntimeError("a forecasting batch has a history")
        target = target_of(batch)
        summary = task.reading.summary(prediction)
        truth, past, guess = _numpy(target), _numpy(batch.history), _numpy(summary)
        model.add(summary[..., 0], target)
        last = torch.from_numpy(_last_known(past)).to(target)
        naive.add(last[:, None].expand_as(target), target)
        for b, window in enumerate(batch.rows.tolist()):
            done += 1
            if done - 1 in wanted:
                length = int(batch.lengths[b])
                kept.append(Example(window, past[b, :length] * std + mean, truth[b] * std + mean,
                                    guess[b] * std[:, None] + mean[:, None]))  # fmt: skip
    return Forecasts(kept, model, naive, total)


def _last_known(past: np.ndarray) -> np.ndarray:
    """Return the last value of [B, L, C] that is not NaN, [B, C]; NaN where there is none."""
    known = ~np.isnan(past)
    at = past.shape[1] - 1 - known[:, ::-1].argmax(1)
    return np.take_along_axis(past, at[:, None], axis=1)[:, 0]
