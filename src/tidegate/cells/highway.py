"""Recurrent highway networks: several gated layers inside one step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import check_size


@CELLS.add("rhn")
class RHN(Cell):
    """Recurrent highway network: `depth` L highway layers between one step and the next.

        s_0 = h
        n_l = tanh([l=1] W_n x + U_nl s_{l−1} + b_nl)    t_l = σ([l=1] W_t x + U_tl s_{l−1} + b_tl)
        s_l = t_l⊙n_l + (1−t_l)⊙s_{l−1}                  h' = s_L

    U_n1 and U_t1 are `weight_hh`; those of layer l > 1 are `weight_hh_l` [2H, H], with `bias_hh_l` [2H].

    Source: Zilly, Srivastava, Koutník & Schmidhuber 2016 (1607.03474), equations 6 to 9, with the carry gate
    coupled, c = 1−t, as in all of its experiments. Deviations: two bias vectors in layer 1; the mask of
    variational dropout and layer norm act on layer 1; the transform gate's bias begins as the others do
    (the paper's is negative: `init=lambda cell, gates: …`).
    """

    gates = ("n", "t")

    def __init__(self, input_size: int, hidden_size: int, *, depth: int = 2, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.depth = check_size(self, "depth", depth)
        for layer in range(2, depth + 1):
            self.own(f"weight_hh_{layer}", 2 * hidden_size, hidden_size)
            if self.bias:
                self.own(f"bias_hh_{layer}", 2 * hidden_size)
            else:
                self.register_parameter(f"bias_hh_{layer}", None)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        n, t = self.gate(x, h)
        for layer in range(2, self.depth + 1):
            h = self._layer(n, t, h)
            weight, bias = getattr(self, f"weight_hh_{layer}"), getattr(self, f"bias_hh_{layer}")
            n, t = self.linear(h, weight, bias).chunk(2, -1)
        return self._layer(n, t, h)

    def _layer(self, n: Tensor, t: Tensor, s: Tensor) -> Tensor:
        t = sigmoid(t)
        return t * self.candidate(tanh(n)) + (1 - t) * s
