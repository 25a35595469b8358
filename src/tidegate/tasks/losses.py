"""Losses as functions: each returns the sum and how many were summed, so that a mean is divided once.

    total, count = cross_entropy(logits, target)
    (total / count.clamp(min=1)).backward()

Class targets are int64 [...] beside logits [..., C]; where one is `IGNORED` (-100) nothing counts, whatever the logits
hold. Numbers are [...]; a truth that is NaN counts nothing. Sums are in nats where a loss is a logarithm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from tidegate.data.batch import IGNORED
from tidegate.errors import ConfigError, ShapeError

Sums = tuple[Tensor, Tensor]


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float = 0.0,
    weight: Tensor | None = None,
    adjustment: Tensor | None = None,
) -> Sums:
    """Sum `−w_y ln softmax(z + a)_y`, the truth smoothed to `(1 − ε) onehot(y) + ε/C` (torch's form).

    `weight` [C] is w; `adjustment` [C] is a: `τ ln π` for logit adjustment (Menon et al. 2021, 2007.07314, section 4).
    The count is that of targets, not the sum of weights.
    """
    _check_smoothing(label_smoothing)
    _check_each("cross-entropy", (logits.shape[-1],), weight=weight, adjustment=adjustment)
    logits, target, real = _classes("cross-entropy", logits, target)
    logits = logits if adjustment is None else logits + adjustment.to(logits)
    weight = None if weight is None else weight.to(logits)
    flat, classes = logits.reshape(-1, logits.shape[-1]), target.masked_fill(~real, IGNORED).flatten()
    total = F.cross_entropy(
        flat, classes, weight=weight, ignore_index=IGNORED, label_smoothing=label_smoothing, reduction="sum"
    )
    return total, real.sum()


def focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, weight: Tensor | None = None) -> Sums:
    """Sum `−α_y (1 − p)^γ ln p`, `p = softmax(z)_y`; `weight` [C] is α, 1 unless given.

    Source: Lin et al. 2017 (1708.02002), equations 4 and 5. Deviation: softmax over C classes where the paper has a
    sigmoid for each (see `binary_focal`).
    """
    _check_above("computing the focal loss", "gamma", gamma, itself=True)
    _check_each("the focal loss", (logits.shape[-1],), weight=weight)
    logits, target, real = _classes("the focal loss", logits, target)
    log_p = logits.log_softmax(-1)
    own = F.one_hot(target, logits.shape[-1]).bool()
    # ln(1 − p) as a difference of log-sums stays finite, and so does the gradient, where p rounds to 1.
    log_miss = log_p.masked_fill(own, -torch.inf).logsumexp(-1)
    each = -(gamma * log_miss).exp() * log_p.gather(-1, target[..., None])[..., 0]
    return _summed(each if weight is None else each * weight.to(each)[target], real)


def ldam(logits: Tensor, target: Tensor, margins: Tensor, *, scale: float = 30.0, weight: Tensor | None = None) -> Sums:
    """Sum the cross-entropy of `s (z − Δ_y onehot(y))`: the true class must win by its margin; `margins` [C] is Δ.

    Meant for logits that are cosines (features and class weights of norm 1), as in the paper.
    Source: Cao et al. 2019 (1906.07413), section 3; `tasks.long_tail.ldam_margins` gives `Δ_j = C / n_j^¼`.
    """
    _check_above("computing the LDAM loss", "scale", scale)
    _check_each("the LDAM loss", (logits.shape[-1],), margins=margins)
    logits, safe, real = _classes("the LDAM loss", logits, target)
    behind = logits - F.one_hot(safe, logits.shape[-1]) * margins.to(logits)
    return cross_entropy(scale * behind, safe.masked_fill(~real, IGNORED), weight=weight)


def binary_cross_entropy(
    logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Sums:
    """Sum `−w_y (t ln σ(z) + (1 − t) ln σ(−z))`, `t = (1 − ε) y + ε/2`, over labels y of 0 and 1 (NaN: left out).

    `weight` [C, 2] has for each label the weight of a 0 and of a 1.
    """
    _check_smoothing(label_smoothing)
    _check_each("binary cross-entropy", (logits.shape[-1], 2), weight=weight)
    logits, y, real = _labels("binary cross-entropy", logits, target)
    smooth = (1 - label_smoothing) * y + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return _summed(each * _label_weight(y, weight), real)


def binary_focal(logits: Tensor, target: Tensor, *, gamma: float = 2.0, weight: Tensor | None = None) -> Sums:
    """Sum `−α_y (1 − p)^γ ln p`, `p = σ(z)` where y is 1 and `σ(−z)` where it is 0; `weight` [C, 2] is α.

    The paper's α and 1 − α for every label are `weight=torch.tensor([1 - alpha, alpha]).expand(C, 2)`.
    Source: Lin et al. 2017 (1708.02002), equations 4 and 5.
    """
    _check_above("computing the binary focal loss", "gamma", gamma, itself=True)
    _check_each("the binary focal loss", (logits.shape[-1], 2), weight=weight)
    logits, y, real = _labels("the binary focal loss", logits, target)
    towards = torch.where(y > 0.5, logits, -logits)
    each = -(gamma * F.logsigmoid(-towards)).exp() * F.logsigmoid(towards)
    return _summed(each * _label_weight(y, weight), real)


def squared_error(prediction: Tensor, truth: Tensor) -> Sums:
    """Sum `(ŷ − y)²`."""
    prediction, truth, seen = _numbers("the squared error", prediction, truth)
    return _summed(F.mse_loss(prediction, truth, reduction="none"), seen)


def absolute_error(prediction: Tensor, truth: Tensor) -> Sums:
    """Sum `|ŷ − y|`."""
    prediction, truth, seen = _numbers("the absolute error", prediction, truth)
    return _summed(F.l1_loss(prediction, truth, reduction="none"), seen)


def huber(prediction: Tensor, truth: Tensor, *, threshold: float = 1.0) -> Sums:
    """Sum `e²/2` where `|e| ≤ δ`, else `δ (|e| − δ/2)`; `threshold` is δ (Huber 1964)."""
    _check_above("computing the Huber loss", "threshold", threshold)
    prediction, truth, seen = _numbers("the Huber loss", prediction, truth)
    return _summed(F.huber_loss(prediction, truth, reduction="none", delta=threshold), seen)


def pinball(prediction: Tensor, truth: Tensor, quantiles: Sequence[float]) -> Sums:
    """Sum the mean over quantiles of `max(q e, (q − 1) e)`, `e = y − ŷ_q`; predictions are [..., Q].

    Source: Koenker & Bassett 1978.
    """
    if prediction.shape != (*truth.shape, len(quantiles)):
        raise _unfit(
            "the pinball loss", f"predictions {[*truth.shape, len(quantiles)]}, one for each quantile", prediction
        )
    if not all(0 < q < 1 for q in quantiles):
        raise ConfigError(
            "computing the pinball loss", expected="quantiles between 0 and 1", got=str(quantiles), hint="(0.1, 0.9)"
        )
    seen = ~truth.isnan()
    q = torch.tensor(quantiles, device=prediction.device, dtype=prediction.dtype)
    error = (truth[..., None] - prediction).masked_fill(~seen[..., None], 0)
    return _summed(torch.maximum(q * error, (q - 1) * error).mean(-1), seen)


def nll(distribution: Distribution, truth: Tensor) -> Sums:
    """Sum `−ln f(y)` of any distribution of torch's over single numbers, of the shape of `truth`.

    Where a truth is missing the distribution is asked for 0 instead, which it must know.
    """
    if distribution.batch_shape != truth.shape:
        raise _unfit("the negative log-likelihood", f"a distribution for each truth {list(truth.shape)}", truth,
                     f"one of shape {list(distribution.batch_shape)}")  # fmt: skip
    seen = ~truth.isnan()
    return _summed(-distribution.log_prob(torch.where(seen, truth, 0)), seen)


def _summed(each: Tensor, real: Tensor) -> Sums:
    return torch.where(real, each, 0).sum(), real.sum()


def _classes(what: str, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits with 0 where nothing counts, targets with class 0 there, and where something does."""
    if target.is_floating_point() or target.dtype == torch.bool or logits.shape[:-1] != target.shape:
        raise _unfit(
            what, f"whole numbers as targets, {list(logits.shape[:-1])} for logits {list(logits.shape)}", target
        )
    real = target != IGNORED
    safe = target.masked_fill(~real, 0)
    # A device would have to be waited for; there torch itself stops at such a target.
    if safe.numel() and safe.device.type == "cpu" and not 0 <= int(safe.min()) <= int(safe.max()) < logits.shape[-1]:
        worst = safe[(safe < 0) | (safe >= logits.shape[-1])][0]
        raise ConfigError(
            f"computing {what}",
            expected=f"classes in 0..{logits.shape[-1] - 1}, or {IGNORED} where there is none",
            got=str(int(worst)),
            hint="a logit for every class",
        )
    return logits.masked_fill(~real[..., None], 0), safe, real


def _check_smoothing(share: float) -> None:
    if not 0 <= share < 1:
        raise ConfigError(
            "smoothing labels",
            expected="a share of at least 0 and below 1",
            got=repr(share),
            hint="label_smoothing=0.1",
        )


def _check_above(what: str, name: str, value: float, least: float = 0.0, *, itself: bool = False) -> None:
    if not (value >= least if itself else value > least):
        bound = f"of at least {least:g}" if itself else f"above {least:g}"
        raise ConfigError(what, expected=f"{name} {bound}", got=repr(value), hint=f"leave out {name}")


def _check_each(what: str, shape: tuple[int, ...], **given: Tensor | None) -> None:
    for name, value in given.items():
        if value is not None and value.shape != shape:
            raise _unfit(what, f"{name} {list(shape)}, C={shape[0]} as in the logits", value)


def _labels(what: str, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits, y, real = _numbers(what, logits, target)
    return logits, y.to(logits), real


def _label_weight(y: Tensor, weight: Tensor | None) -> Tensor | float:
    if weight is None:
        return 1.0
    weight = weight.to(y)
    return torch.where(y > 0.5, weight[..., 1], weight[..., 0])


def _numbers(what: str, prediction: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if prediction.shape != truth.shape:
        raise _unfit(what, f"predictions of the truths' shape {list(truth.shape)}", prediction)
    seen = ~truth.isnan()
    return prediction.masked_fill(~seen, 0), truth.masked_fill(~seen, 0), seen


def _unfit(what: str, expected: str, found: Tensor, got: str = "") -> ShapeError:
    return ShapeError(
        f"computing {what}",
        expected=expected,
        got=got or f"shape {list(found.shape)}, dtype {found.dtype}",
        hint="print the shapes of both",
    )
