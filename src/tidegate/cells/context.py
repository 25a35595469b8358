"""A vanilla network beside slow context units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, sigmoid

from tidegate.cells.base import CELLS, Cell


@CELLS.add("scrn")
class SCRN(Cell):
    """Structurally constrained network: a vanilla recurrence h beside slow context units s.

        s' = (1−α)(W_s x + b_s) + α s
        h' = σ(W_h x + U [h, s'] + b_h)
        output = state = [h', s']

    U is `weight_hh` [H, 2H], the paper's R and P side by side; output and state are 2H wide. `alpha` α is how much
    of the context stays.

    Source: Mikolov, Joulin, Chopra, Mathieu & Ranzato 2014 (1412.7753), section 3, with α fixed (its section 3.3 learns
    it). The paper's output layer reads h and s: so does what is given this output. Deviations: as
    many context units as hidden ones; biases; variational dropout masks h and s'.
    """

    gates = ("h", "s")
    recurrent_gates = ("h",)

    def __init__(self, input_size: int, hidden_size: int, *, alpha: float = 0.95, **options: Any) -> None:
        super().__init__(input_size, hidden_size, recurrent_size=2 * hidden_size, **options)
        self.alpha = alpha

    def step(self, x: Tensor, state: Tensor) -> Tensor:  # type: ignore[override]
        x_h, x_s = self.split(x)
        h, s = state.chunk(2, -1)
        s = (1 - self.alpha) * self.candidate(x_s) + self.alpha * s
        h = sigmoid(x_h + self.recurrent("h", torch.cat([h, s], -1)))
        return torch.cat([h, s], -1)
