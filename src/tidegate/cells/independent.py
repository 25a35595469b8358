"""Rectified recurrent networks that begin near the identity."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.elman import Activation, Elman, activation_of


@CELLS.add("indrnn")
class IndRNN(Cell):
    """Independently recurrent network: each unit sees no past but its own.

        h' = f(W x + u⊙h + b)

    u is `weight_u` [H], first drawn from U(0, 1). `activation` f is the paper's ReLU unless given: a name or a
    callable, as in `Elman`.

    Source: Li, Li, Cook, Zhu & Gao 2018 (1803.04831), equation 2. Deviation: |u| is not clipped to γ^(1/T), which
    the paper does after each update for sequences of T steps.
    """

    gates = ("n",)
    recurrent_gates = ()

    def __init__(
        self, input_size: int, hidden_size: int, *, activation: str | Activation = "relu", **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.f = activation_of(type(self).__name__, activation)
        self.weight_u = self.own("weight_u", hidden_size, fill=partial(nn.init.uniform_, a=0.0, b=1.0))

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return self.candidate(self.f(x + self.weight_u * h))


@CELLS.add("irnn")
class IRNN(Elman):
    """Rectified recurrent network that begins as the identity.

        h' = relu(W x + U h + b)    at first U = 1, b = 0, W ~ N(0, 0.001²)

    `init` and `activation` may still be given, and replace these.

    Source: Le, Jaitly & Hinton 2015 (1504.00941), section 3. Deviation: two bias vectors.
    """

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **{"activation": "relu", "init": "identity", **options})
