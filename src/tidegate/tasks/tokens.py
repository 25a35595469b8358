"""What tasks that predict tokens share: their loss and their figures."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F

from tidegate.data.batch import IGNORED
from tidegate.tasks.base import Better


def token_loss(logits: Tensor, target: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the sum of cross-entropies, in nats, of `logits` [B, T, V] against `target` [B, T], and their number.

    Entries that are `IGNORED` count nothing. `smoothing` is the share of the truth that is spread over all tokens
    (Szegedy et al. 2016, 1512.00567, section 7).
    """
    flat, truth = logits.flatten(0, 1), target.flatten()
    total = F.cross_entropy(flat, truth, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
    return total, (target != IGNORED).sum()


class TokenSums:
    """Nats and right answers over tokens; perplexity is e to the mean nats."""

    better: ClassVar[Better] = {"perplexity": "lower", "accuracy": "higher"}

    def __init__(self) -> None:
        self.nats, self.right, self.count = 0.0, 0, 0

    def update(self, batch: Any, prediction: Tensor) -> None:
        loss, count = token_loss(prediction, batch.target)
        self.nats += float(loss)
        self.right += int((prediction.argmax(-1) == batch.target).sum())
        self.count += int(count)

    def compute(self) -> dict[str, float]:
        count = max(self.count, 1)
        return {"perplexity": math.exp(min(self.nats / count, 700.0)), "accuracy": self.right / count}
