"""Classes of unequal frequency: weights, margins and priors from their counts, and the losses that use them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from tidegate.errors import ConfigError
from tidegate.tasks import losses
from tidegate.tasks.losses import Sums

Counts = Sequence[int] | Tensor


def class_balanced_weights(counts: Counts, beta: float) -> Tensor:
    """Return `w_j ∝ (1 − β) / (1 − β^n_j)`, which add up to the number of classes, float64 [C].

    `(1 − β^n) / (1 − β)` is the effective number of n examples; β = 0 gives 1 for all, β = 1 the limit `w_j ∝ 1 / n_j`.
    A class without an example counts as one with a single one.
    Source: Cui et al. 2019 (1901.05555), proposition 1 and section 4, normalised as there.
    """
    if not 0 <= beta <= 1:
        raise ConfigError("weighing classes", expected="beta from 0 to 1", got=repr(beta), hint="beta=0.999")
    n = _at_least_one(counts)
    effective = n if beta == 1 else (1 - beta**n) / (1 - beta)
    return len(n) / effective / (1 / effective).sum()


def ldam_margins(counts: Counts, largest: float = 0.5) -> Tensor:
    """Return `Δ_j = C / n_j^¼` with the C that makes the rarest class's margin `largest`, float64 [C].

    A class without an example counts as one with a single one. Source: Cao et al. 2019 (1906.07413), section 3.
    """
    if not largest > 0:
        raise ConfigError("giving classes margins", expected="a largest margin above 0", got=repr(largest), hint="0.5")
    n = _at_least_one(counts)
    return largest * (n.min() / n) ** 0.25


def log_priors(counts: Counts) -> Tensor:
    """Return `ln π_j`, the logarithm of each class's share, float64 [C].

    A class without an example counts as one with a single one: its logarithm must be finite.
    """
    n = _at_least_one(counts)
    return (n / n.sum()).log()


def _at_least_one(counts: Counts) -> Tensor:
    return torch.as_tensor(counts, dtype=torch.float64).clamp(min=1)


_BY_COUNTS = ("logit_adjustment", "logit_adjustment_after")


class ClassLoss(BaseModel):
    """The loss over classes, with what it knows of the training part. Frozen and JSON-able: saved with the model.

    `counts` [C] are those of the training part, `weights` [C] those asked for, none if empty. With z a prediction:

        cross_entropy   cross-entropy of z + τ ln π, smoothed     (`logit_adjustment` is τ)
        focal           focal loss of z
        ldam            LDAM loss of z, the cosines of a normed head

    `scores` are the logits to decide by: z − τ ln π where τ is `logit_adjustment_after`, for LDAM s z.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["cross_entropy", "focal", "ldam"] = "cross_entropy"
    counts: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    ldam_margin: float = 0.5
    ldam_scale: float = 30.0
    logit_adjustment: float = 0.0
    logit_adjustment_after: float = 0.0

    def model_post_init(self, _: Any) -> None:
        """Refuse options that do not go together, as pydantic does: with a `ValidationError` that says so."""
        doing, asked = "building a loss over classes", [n for n in _BY_COUNTS if getattr(self, n)]
        if len(asked) > 1:
            raise ConfigError(doing, expected=f"one of {' and '.join(asked)}", got="both", hint=f"leave out {asked[0]}")
        asked += ["loss='ldam'"] if self.loss == "ldam" else []
        if asked and not self.counts:
            raise ConfigError(
                doing,
                expected=f"counts, how often each class comes, for {asked[0]}",
                got="none",
                hint="counts=(90, 10)",
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Sums:
        """Return the sum of losses and their count."""
        weight = torch.tensor(self.weights, dtype=torch.float64) if self.weights else None
        if self.loss == "focal":
            return losses.focal(logits, target, gamma=self.focal_gamma, weight=weight)
        if self.loss == "ldam":
            margins = ldam_margins(self.counts, self.ldam_margin)
            return losses.ldam(logits, target, margins, scale=self.ldam_scale, weight=weight)
        tau = self.logit_adjustment
        adjustment = tau * log_priors(self.counts) if tau else None
        return losses.cross_entropy(
            logits, target, label_smoothing=self.label_smoothing, weight=weight, adjustment=adjustment
        )

    def scores(self, prediction: Tensor) -> Tensor:
        """Return the logits [..., C] whose softmax is the probability of each class."""
        scores = self.ldam_scale * prediction if self.loss == "ldam" else prediction
        if tau := self.logit_adjustment_after:
            return scores - tau * log_priors(self.counts).to(scores)
        return scores


class LabelLoss(BaseModel):
    """The loss over several yes/no labels: `ClassLoss` for each, of two classes. Saved with the model.

    `counts` [C] says how many sequences of the training part, `of` in all, have each label; `weights` [C] has the
    weight of a label that is not there and of one that is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    counts: tuple[int, ...] = ()
    of: int = 0
    weights: tuple[tuple[float, float], ...] = ()
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0

    def __call__(self, logits: Tensor, target: Tensor) -> Sums:
        """Return the sum of losses over labels and their count."""
        weight = torch.tensor(self.weights, dtype=torch.float64) if self.weights else None
        if self.loss == "focal":
            return losses.binary_focal(logits, target, gamma=self.focal_gamma, weight=weight)
        return losses.binary_cross_entropy(logits, target, label_smoothing=self.label_smoothing, weight=weight)
