"""Which learning rate: the loss while the rate grows from far too small to far too large."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tidegate.errors import ConfigError, DataError
from tidegate.modes import modes_of, set_modes
from tidegate.train.carry import Carry
from tidegate.train.checkpoint import copied
from tidegate.train.clip import clip_gradients
from tidegate.train.loop import LoaderLike
from tidegate.train.optim import make_optimizer, set_rates
from tidegate.train.parallel import make_accelerator
from tidegate.train.precision import Precision
from tidegate.train.regularise import make_regulariser
from tidegate.train.seeds import random_state_kept
from tidegate.train.settings import TrainSettings

SMOOTHING = 0.9
DIVERGED = 4.0


@dataclass(frozen=True)
class RateTest:
    """The smoothed mean loss at each rate, and the rate at which it fell fastest, None where it never fell."""

    rates: list[float]
    losses: list[float]
    suggested: float | None


@random_state_kept()
def find_rate(
    model: nn.Module, train: LoaderLike, settings: TrainSettings, *, low: float = 1e-6, high: float = 1.0,
    steps: int = 100,
) -> RateTest:  # fmt: skip
    """Train for `steps` batches while the rate grows from `low` to `high`; leave the model as it was.

    Its weights, buffers and modes, and torch's random state, that is: it is on the device of `settings` and has no
    gradients afterwards.

    The rate is multiplied by the same factor each step, until the loss, smoothed over about ten steps, is no number or
    four times its least (where losses pass 0, has risen three times as far as it fell). All else is as in `settings`,
    whose `lr` plays no part.

    Source: Smith 2017 (1506.01186), section 3.3. Deviation: the rate grows by factors, and the one suggested is where
    the smoothed loss falls fastest over the logarithm of the rate, before its least.
    Raises `ConfigError` for bounds that are none, `DataError` where there are no batches.
    """
    if not 0 < low < high or steps < 3:
        raise ConfigError(
            "looking for a learning rate", expected="0 < low < high, and at least 3 steps",
            got=f"low={low:g}, high={high:g}, steps={steps}", hint="low=1e-6, high=1, steps=100",
        )  # fmt: skip
    device = make_accelerator(settings.device).device
    before, modes = copied(model), modes_of(model)
    trained: Any = model.to(device).train()
    optimizer = make_optimizer(model, settings)
    rates: list[float] = []
    losses: list[float] = []
    norms: list[float] = []
    mean = least = math.inf
    try:
        carry = Carry(model)
        regulariser, precision = make_regulariser(model, settings), Precision(settings.precision, device)
        for number, batch in zip(range(steps), _endless(train), strict=False):
            rate = low * (high / low) ** (number / (steps - 1))
            set_rates(optimizer, rate / settings.lr)
            batch = batch.to(device)
            with precision.running(), regulariser.watching():
                prediction = carry(trained, batch)
            loss, count = trained.loss(batch, precision.full(prediction))
            now = float(loss.detach()) / max(int(count), 1)
            mean = now if not losses else SMOOTHING * mean + (1 - SMOOTHING) * now
            if not math.isfinite(mean) or (losses and mean - least > _too_much(losses[0], least)):
                break
            least = min(least, mean)
            rates.append(rate)
            losses.append(mean)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(precision.scaled(regulariser(loss / max(int(count), 1))))
            precision.unscale(optimizer)
            clip_gradients(model.parameters(), settings, norms)
            precision.step(optimizer)
    finally:
        model.load_state_dict(before)
        set_modes(modes)
        model.zero_grad(set_to_none=True)
    return RateTest(rates, losses, _steepest(rates, losses))


def _too_much(first: float, least: float) -> float:
    """Return how far above the least loss is diverging: three times that loss or, where losses pass 0, its fall."""
    return (DIVERGED - 1) * max(abs(least), first - least)


def _endless(train: LoaderLike) -> Iterator[Any]:
    for epoch in itertools.count():
        found = False
        for batch in train.batches(epoch):
            found = True
            yield batch
        if not found:
            raise DataError(
                "looking for a learning rate", expected="batches to train on", got="none", hint="give more rows"
            )


def _steepest(rates: list[float], losses: list[float]) -> float | None:
    """Return the rate, below that of the least loss, around which the loss fell most over a few steps."""
    end = losses.index(min(losses)) if losses else 0
    reach = min(2, end // 2)
    falls = {i: losses[i - reach] - losses[i + reach] for i in range(reach, end - reach + 1)} if reach else {}
    best = max(falls, key=falls.__getitem__, default=0)
    return rates[best] if falls and falls[best] > 0 else None
