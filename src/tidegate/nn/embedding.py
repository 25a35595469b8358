"""Embeddings of tokens, whole tokens dropped in training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.noise import draw
from tidegate.cells.options import check_size, probability
from tidegate.nn.inputs import check_range, check_tokens


class Embedding(nn.Embedding):
    """A vector for each of `tokens`: [...] integers -> [..., size]; weights are drawn as `torch.nn.Embedding`'s are.

    With `dropout`, in training, whole rows of the matrix are dropped, one mask for a forward pass: wherever a token
    that is dropped occurs, its vector is 0, and all others are scaled by 1/(1 − dropout). Whoever reads `weight`
    itself (tied scores) reads it whole.

    Raises `ShapeError` for tokens that are no integers or none of these, `ConfigError` for sizes that are none.
    Source: Gal & Ghahramani 2016 (1512.05287), section 4.2; Merity et al. 2018 (1708.02182), section 4.3. No deviation.
    """

    def __init__(
        self, tokens: int, size: int, *, dropout: float = 0.0,
        device: torch.device | str | None = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(check_size(self, "tokens", tokens), check_size(self, "size", size), device=device, dtype=dtype)
        self.dropout = probability("building Embedding", dropout)

    def forward(self, tokens: Tensor, *, checked: bool = False) -> Tensor:
        """Return the vectors; tokens that the caller has `checked` are not looked at again."""
        if not checked:
            check_tokens("embedding tokens", tokens)
            check_range("embedding tokens", tokens, self.num_embeddings)
        tokens = tokens.long()
        vectors = F.embedding(tokens, self.weight)
        if not self.training or not self.dropout:
            return vectors
        kept = draw("tokens", self.dropout, self.weight, self.num_embeddings, 1)
        return vectors * F.embedding(tokens, kept)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, dropout={self.dropout}"
