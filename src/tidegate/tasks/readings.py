"""What the numbers of a head say of a number to be predicted: a point, quantiles, or a whole distribution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch import distributions as laws
from torch.nn import functional as F

from tidegate.tasks import losses
from tidegate.tasks.losses import Sums

NumberLoss = Literal[
    "mse", "mae", "huber", "quantile", "gaussian", "laplace", "student_t", "poisson", "negative_binomial"
]
NUMBER_LOSSES: tuple[str, ...] = get_args(NumberLoss)
POINT_LOSSES, COUNTS = ("mse", "mae", "huber"), ("poisson", "negative_binomial")
_POINT = dict(zip(POINT_LOSSES, (losses.squared_error, losses.absolute_error, losses.huber), strict=True))
_FLOOR = 1e-4
"""Least scale, in standard units: the likelihood of data without noise has no bound."""


class Reading(ABC):
    """Reads `size` numbers a target, `raw` [..., C, size], of targets in standard units of the training part.

    The first `places` of them lie where the target lies; those in `log_scales` are logarithms of its spread. `levels`
    are the quantiles it gives.
    """

    size = 1
    places = 1
    log_scales: tuple[int, ...] = ()
    levels: tuple[float, ...] = ()

    @abstractmethod
    def loss(self, raw: Tensor, truth: Tensor) -> Sums:
        """Return the sum of losses over truths [..., C] that are not NaN, and how many there are."""

    @abstractmethod
    def point(self, raw: Tensor) -> Tensor:
        """Return the point prediction [..., C]."""

    @abstractmethod
    def quantiles(self, raw: Tensor) -> Tensor:
        """Return the quantiles `levels` [..., C, Q], which never cross."""

    def others(self, raw: Tensor) -> dict[str, Tensor]:  # noqa: ARG002 - some need it
        """Return what else the head says, each [..., C]: the `scale`, in standard units, and parameters without one."""
        return {}

    def summary(self, raw: Tensor) -> Tensor:
        """Return the point prediction, then each quantile, [..., C, 1 + Q]."""
        point, quantiles = self.point(raw)[..., None], self.quantiles(raw)
        return torch.cat([point, quantiles.to(point)], -1)

    def columns(self, raw: Tensor, names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """Return [...] per target in its own units: `<name>`, `<name>_q10` … and `<name>_<other>`."""
        raw = raw.cpu().double()
        values, others = self.summary(raw).numpy(), self.others(raw)
        found: dict[str, Any] = {}
        for i, (name, m, s) in enumerate(zip(names, mean, std, strict=True)):
            own = values[..., i, :] * s + m
            found[name] = own[..., 0]
            found |= {f"{name}_q{100 * q:g}": own[..., 1 + j] for j, q in enumerate(self.levels)}
            found |= {f"{name}_{k}": v[..., i].numpy() * (s if k == "scale" else 1) for k, v in others.items()}
        return found


class Points(Reading):
    """A point, and beside it a number for each of `levels`: point loss + mean pinball loss."""

    def __init__(self, kind: str, levels: tuple[float, ...] = ()) -> None:
        self.kind, self.levels = kind, levels
        self.size = self.places = 1 + len(levels)

    def loss(self, raw: Tensor, truth: Tensor) -> Sums:
        total, count = _POINT[self.kind](raw[..., 0], truth)
        return (total + losses.pinball(raw[..., 1:], truth, self.levels)[0] if self.levels else total), count

    def point(self, raw: Tensor) -> Tensor:
        return raw[..., 0]

    def quantiles(self, raw: Tensor) -> Tensor:
        return raw[..., 1:].sort(-1).values


class Quantiles(Reading):
    """A number for each of `levels` and for the median, which is the point: mean pinball loss."""

    def __init__(self, levels: tuple[float, ...]) -> None:
        self.levels, self.all = levels, tuple(sorted({0.5, *levels}))
        self.size = self.places = len(self.all)

    def loss(self, raw: Tensor, truth: Tensor) -> Sums:
        return losses.pinball(raw, truth, self.all)

    def point(self, raw: Tensor) -> Tensor:
        return raw.sort(-1).values[..., self.all.index(0.5)]

    def quantiles(self, raw: Tensor) -> Tensor:
        return raw.sort(-1).values[..., [self.all.index(q) for q in self.levels]]


class Continuous(Reading):
    """Place and spread of a distribution, `μ = r_0`, `s = exp(r_1) + 10⁻⁴`; of Student's t `ν = 2 + softplus(r_2)` too.

    The loss is −ln f(y) in nats, y in standard units; the point is μ, mean and median at once.
    """

    def __init__(self, kind: str, levels: tuple[float, ...]) -> None:
        self.kind, self.levels = kind, levels
        self.size, self.log_scales = 3 if kind == "student_t" else 2, (1,)

    def law(self, raw: Tensor) -> laws.Distribution:
        """Return the distribution of each target, [..., C]."""
        scale, *df = self.others(raw).values()
        if self.kind == "student_t":
            return laws.StudentT(df[0], raw[..., 0], scale, validate_args=False)
        return {"gaussian": laws.Normal, "laplace": laws.Laplace}[self.kind](raw[..., 0], scale, validate_args=False)

    def loss(self, raw: Tensor, truth: Tensor) -> Sums:
        return losses.nll(self.law(raw), truth)

    def point(self, raw: Tensor) -> Tensor:
        return raw[..., 0]

    def others(self, raw: Tensor) -> dict[str, Tensor]:
        found = {"scale": raw[..., 1].exp() + _FLOOR}
        return {**found, "df": 2 + F.softplus(raw[..., 2])} if self.kind == "student_t" else found

    def quantiles(self, raw: Tensor) -> Tensor:
        scale, *df = (each.cpu().double().numpy()[..., None] for each in self.others(raw).values())
        name = {"gaussian": "norm", "laplace": "laplace", "student_t": "t"}[self.kind]
        return _inverse(name, self.levels, *df, loc=raw[..., 0].cpu().double().numpy()[..., None], scale=scale)


class Counted(Reading):
    """The mean of a count, `λ = σ (softplus(r_0 + m/σ) + 10⁻⁴)`, m and σ being the target's mean and deviation.

    Softplus makes r_0 a place in standard units wherever λ is well above 0. The negative binomial has a variance of
    `λ + α λ²`, `α = softplus(r_1) + 10⁻⁶`. The loss is −ln P(y) in nats; the point is λ, quantiles are whole numbers.
    """

    def __init__(self, kind: str, levels: tuple[float, ...], mean: Sequence[float], std: Sequence[float]) -> None:
        self.kind, self.levels, self.mean, self.std = kind, levels, mean, std
        self.size = 2 if kind == "negative_binomial" else 1

    def _scaling(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and deviations [C], in double precision where there is one: lgamma of large counts cancels."""
        precise = torch.float32 if raw.device.type == "mps" else torch.float64
        mean, std = (torch.tensor(v, dtype=precise, device=raw.device) for v in (self.mean, self.std))
        return mean, std

    def rate(self, raw: Tensor) -> Tensor:
        """Return the mean of each count in the target's own units, [..., C]."""
        mean, std = self._scaling(raw)
        return std * (F.softplus(raw[..., 0].to(mean) + mean / std) + _FLOOR)

    def others(self, raw: Tensor) -> dict[str, Tensor]:
        precise = self._scaling(raw)[0]
        return {"dispersion": F.softplus(raw[..., 1].to(precise)) + 1e-6} if self.size == 2 else {}

    def law(self, raw: Tensor) -> laws.Distribution:
        """Return the distribution of each count in the target's own units, [..., C]."""
        rate, *dispersion = self.rate(raw), *self.others(raw).values()
        if not dispersion:
            return laws.Poisson(rate, validate_args=False)
        return laws.NegativeBinomial(1 / dispersion[0], logits=(rate * dispersion[0]).log(), validate_args=False)

    def loss(self, raw: Tensor, truth: Tensor) -> Sums:
        mean, std = self._scaling(raw)
        total, count = losses.nll(self.law(raw), (truth.to(mean) * std + mean).round())
        return total.to(raw), count

    def point(self, raw: Tensor) -> Tensor:
        mean, std = self._scaling(raw)
        return ((self.rate(raw) - mean) / std).to(raw)

    def quantiles(self, raw: Tensor) -> Tensor:
        mean, std = self._scaling(raw)
        given = (self.rate(raw), *self.others(raw).values())
        rate, *dispersion = (each.cpu().numpy()[..., None] for each in given)
        if dispersion:
            found = _inverse("nbinom", self.levels, 1 / dispersion[0], 1 / (1 + rate * dispersion[0]))
        else:
            found = _inverse("poisson", self.levels, rate)
        return (found.to(mean) - mean[:, None]) / std[:, None]


def _inverse(name: str, levels: tuple[float, ...], *shape: np.ndarray, **place: np.ndarray) -> Tensor:
    """Return the quantiles of one of SciPy's distributions, [..., Q]; torch has no inverse of most."""
    from scipy import stats

    return torch.from_numpy(np.asarray(getattr(stats, name).ppf(np.array(levels), *shape, **place), np.float64))


def make_reading(kind: str, levels: tuple[float, ...], mean: Sequence[float], std: Sequence[float]) -> Reading:
    """Return how a head is read that was trained with the loss `kind`, to give the quantiles `levels`."""
    if kind in _POINT:
        return Points(kind, levels)
    if kind == "quantile":
        return Quantiles(levels)
    return Counted(kind, levels, mean, std) if kind in COUNTS else Continuous(kind, levels)
