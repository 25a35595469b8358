"""Light gated recurrent units: no reset gate, and a ReLU candidate."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, relu, sigmoid

from tidegate.cells.base import CELLS, Cell


@CELLS.add("ligru")
class LiGRU(Cell):
    """Light gated recurrent unit: no reset gate, and a ReLU candidate.

        z = σ(W_z x + U_z h + b_z)    n = relu(W_n x + U_n h + b_n)
        h' = z⊙h + (1−z)⊙n

    Source: Ravanelli, Brakel, Omologo & Bengio 2018 (1803.10225), section III; z keeps the past. Deviation:
    without the batch norm on W x that keeps its ReLU bounded: use `layer_norm=True`, or a layer's `norm="batch"`.
    """

    gates = ("z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        z, n = self.gate(x, h)
        z = sigmoid(z)
        return z * h + (1 - z) * self.candidate(relu(n))


@CELLS.add("sligru")
class SLiGRU(Cell):
    """Stabilised light gated recurrent unit: each recurrent product is layer-normalised.

        z = σ(W_z x + LN(U_z h) + b_z)    n = relu(W_n x + LN(U_n h) + b_n)
        h' = z⊙h + (1−z)⊙n

    LN has neither gain nor bias; `layer_norm=True` normalises W x as well and gives U h a gain before LN.

    Source: Moumen & Parcollet 2023 (2302.10144), section 3; z keeps the past. Deviation: without the batch norm
    on W x, as in `LiGRU`.
    """

    gates = ("z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_z, x_n = self.split(x)
        z = sigmoid(x_z + self._past("z", h))
        n = self.candidate(relu(x_n + self._past("n", h)))
        return z * h + (1 - z) * n

    def _past(self, gate: str, h: Tensor) -> Tensor:
        product = self.recurrent(gate, h, bias=False)
        return F.layer_norm(product, (self.hidden_size,)) + self.recurrent_bias(gate)
