"""What the trained network says about the validation part: counts, numbers and forecasts to draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from tidegate.data.loader import Loader
from tidegate.tasks.base import target_of
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Network
from tidegate.tasks.regression import Regression
from tidegate.train.evaluation import predictions


def numbers(network: Network, loader: Loader, task: Regression) -> tuple[np.ndarray, np.ndarray]:
    """Return truths and predictions [N, C] in the targets' own units."""
    mean, std = np.array(task.mean), np.array(task.std)
    truth, guess = [], []
    for batch, prediction in predictions(network, loader):
        truth.append(_numpy(target_of(batch)) * std + mean)
        guess.append(_numpy(prediction) * std + mean)
    return np.concatenate(truth), np.concatenate(guess)


def _numpy(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.double().cpu().numpy())


@dataclass(frozen=True)
class Example:
    """One forecast in the targets' units: `past` [L, C], `truth` [S, C], `guess` [S, C, 1 + Q]."""

    window: int
    past: np.ndarray
    truth: np.ndarray
    guess: np.ndarray


@dataclass(frozen=True)
class Forecasts:
    """A few examples; mean absolute error by step ahead [S, C], of the model and of repeating the last known value."""

    examples: list[Example]
    error: np.ndarray
    naive: np.ndarray
    windows: int


def forecasts(network: Network, loader: Loader, task: Forecasting, examples: int = 4) -> Forecasts:
    """Run every validation window; keep `examples` of them, evenly spread."""
    mean, std = np.array(task.mean), np.array(task.std)
    total = len(loader.maker.lengths)
    wanted = set(np.linspace(0, total - 1, min(examples, total)).round().astype(int).tolist())
    kept: list[Example] = []
    sums = np.zeros((2, task.horizon, len(task.targets)))
    seen = np.zeros_like(sums)
    for batch, prediction in predictions(network, loader):
        if batch.history is None:
            raise RuntimeError("a forecasting batch has a history")
        truth, past, guess = _numpy(target_of(batch)), _numpy(batch.history), _numpy(prediction)
        guess[..., 1:] = np.sort(guess[..., 1:], axis=-1)
        for k, rival in enumerate((guess[..., 0], np.broadcast_to(_last_known(past)[:, None], truth.shape))):
            error = np.abs(rival - truth)
            sums[k] += np.nansum(error, axis=0)
            seen[k] += (~np.isnan(error)).sum(0)
        for b, window in enumerate(batch.rows.tolist()):
            if window in wanted:
                length = int(batch.lengths[b])
                kept.append(Example(window, past[b, :length] * std + mean, truth[b] * std + mean,
                                    guess[b] * std[:, None] + mean[:, None]))  # fmt: skip
    with np.errstate(invalid="ignore"):
        error, naive = sums / np.where(seen > 0, seen, np.nan) * std
    return Forecasts(kept, error, naive, total)


def _last_known(past: np.ndarray) -> np.ndarray:
    """Return the last value of [B, L, C] that is not NaN, [B, C]; NaN where there is none."""
    known = ~np.isnan(past)
    at = past.shape[1] - 1 - known[:, ::-1].argmax(1)
    return np.take_along_axis(past, at[:, None], axis=1)[:, 0]
