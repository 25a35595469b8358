"""Normalisation between layers, over real steps only; padding goes in and comes out as zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidegate.errors import ShapeError
from tidegate.nn.inputs import check_input, first_dtype
from tidegate.registry import Registry
from tidegate.shapes import check_lengths, length_mask, zero_padding

NORMS: Registry[type[nn.Module]] = Registry("norm")


@NORMS.add("batch")
class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B, T, D] over every real step of every row (Ioffe & Szegedy 2015): `norm(x, lengths)`.

    Parameters and statistics are `torch.nn.BatchNorm1d`'s, which takes the steps for channels. Padding gets 0.
    """

    def forward(self, x: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        hint = "batch first; the width is that of the layer before"
        check_input(x, "B, T", self.num_features, first_dtype(self), doing="normalising a batch", name="x", hint=hint)
        if lengths is None:
            flat = x.reshape(-1, x.shape[-1])
            return self._normalise(flat).reshape(x.shape)
        mask = length_mask(check_lengths(lengths, *x.shape[:2]).to(x.device), x.shape[1])
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
