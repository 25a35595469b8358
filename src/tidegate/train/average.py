"""Averages of the weights that descent passes through, from where it no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import SGD, Optimizer


class AveragedSGD(SGD):
    """Stochastic gradient descent; from `begin` on, each weight's mean over all steps since is kept beside it.

        w = w − lr · (g + λ w)        a = a + (w − a)/n,  n = 2, 3, … since `begin`, where a = w

    The averages are part of the optimizer's state. Buffers (batch norm's statistics) are not averaged.
    Source: Polyak & Juditsky 1992; NT-ASGD, Merity et al. 2018 (1708.02182), algorithm 1: see `has_stalled`.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__([{**group, "averaged": 0} for group in groups], lr=lr, fused=True)
        # A step that is left out in fp16 must not be averaged either.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def begin(self) -> None:
        """Begin to average with the weights as they are, unless that has begun."""
        for group in self.param_groups:
            for weight in group["params"] if not group["averaged"] else ():
                self.state[weight]["average"] = weight.detach().clone()
            group["averaged"] = group["averaged"] or 1

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, after `closure` if there is one, whose loss is returned."""
        loss = super().step(closure)
        for group in self.param_groups:
            if group["averaged"]:
                group["averaged"] += 1
                for weight in group["params"]:
                    self.state[weight]["average"].lerp_(weight, 1 / group["averaged"])
        return loss

    @torch.no_grad()
    def exchange(self) -> None:
        """Exchange the weights with their averages, where there are any."""
        for group in self.param_groups:
            for weight in group["params"] if group["averaged"] else ():
                average = self.state[weight]["average"]
                now = weight.clone()
                weight.copy_(average)
                average.copy_(now)


@contextmanager
def averages(optimizer: Optimizer) -> Iterator[None]:
    """Let the weights be their averages inside, if the optimizer keeps any."""
    if not isinstance(optimizer, AveragedSGD):
        yield
        return
    optimizer.exchange()
    try:
        yield
    finally:
        optimizer.exchange()


def begin_averages(optimizer: Optimizer, values: Sequence[float], epochs: int) -> None:
    """Let an optimizer that averages begin to, once `values` have stalled."""
    if isinstance(optimizer, AveragedSGD) and has_stalled(values, epochs):
        optimizer.begin()


def has_stalled(values: Sequence[float], epochs: int) -> bool:
    """Whether the last of `values`, lower is better, is above the best of those more than `epochs` before it.

    Source: Merity et al. 2018, algorithm 1, line 6, as their program has it, with an epoch for the logging interval.
    """
    earlier = values[: -1 - epochs]
    best = min((value for value in earlier if not math.isnan(value)), default=math.inf)
    return len(earlier) > 0 and not values[-1] <= best
