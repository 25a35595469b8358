"""Normalisation between layers, over real steps only; padding goes in and comes out as zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tidegate.errors import ShapeError
from tidegate.registry import Registry
from tidegate.shapes import length_mask, zero_padding

NORMS: Registry[type[nn.Module]] = Registry("norm")


@NORMS.add("batch")
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B, T, D] or [B, D] over every real step of every row (Ioffe & Szegedy 2015)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            flat = x.reshape(-1, x.shape[-1])
            return self._normalise(flat).reshape(x.shape)
        mask = length_mask(lengths, x.shape[1])
        return torch.zeros_like(x).masked_scatter(mask[..., None], self._normalise(x[mask]))

    def _normalise(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x
        if self.training and x.shape[0] == 1:
            raise ShapeError(
                "batch norm while training",
                expected="at least two real steps in a batch",
                got="one",
                hint="a larger batch, norm='layer', or .eval()",
            )
        return super().forward(x)


@NORMS.add("layer")
class LayerNorm(nn.LayerNorm):
    """Layer normalisation of every step by itself (Ba et al. 2016)."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y if lengths is None else zero_padding(y, lengths)


@NORMS.add("rms")
class RMSNorm(nn.RMSNorm):
    """Division of every step by its root mean square (Zhang & Sennrich 2019, equation 4; ε = 1e-5 under the root)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-5)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        y = super().forward(x)
        return y if lengths is None else zero_padding(y, lengths)
