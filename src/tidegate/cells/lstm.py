"""Long short-term memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import check_size
from tidegate.errors import ConfigError


@CELLS.add("lstm")
class LSTM(Cell):
    """Long short-term memory with a forget gate.

        i, f, o = σ(W_• x + U_• h + b_•)    g = tanh(W_g x + U_g h + b_g)
        c' = f⊙c + i⊙g                      h' = o⊙tanh(c')

    With `proj_size` P > 0 the output is projected, `h' = W_hr (o⊙tanh(c'))`, with `weight_hr` [P, H]; h is
    then P wide and `weight_hh` is [4H, P].

    Source: Hochreiter & Schmidhuber 1997; forget gate: Gers, Schmidhuber & Cummins 2000; projection: Sak,
    Senior & Beaufays 2014 (its recurrent projection only). Deviations: no peepholes; two bias vectors, as in
    `torch.nn`.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    normed_values = ("c",)

    def __init__(self, input_size: int, hidden_size: int, *, proj_size: int = 0, **options: Any) -> None:
        if proj_size and check_size(self, "proj_size", proj_size) >= hidden_size:
            raise ConfigError(
                "building LSTM",
                expected=f"proj_size smaller than hidden_size={hidden_size}",
                got=str(proj_size),
                hint="leave proj_size out",
            )
        super().__init__(input_size, hidden_size, recurrent_size=proj_size or None, **options)
        self.proj_size = proj_size
        if proj_size:
            self.weight_hr = self.own("weight_hr", proj_size, hidden_size)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        i, f, g, o = self.gate(x, h)
        c = sigmoid(f) * c + sigmoid(i) * self.candidate(tanh(g))
        h = sigmoid(o) * tanh(self.normed("c", c))
        return (self.linear(h, self.weight_hr) if self.proj_size else h), c

    def native(self) -> str | None:
        return "lstm" if type(self) is LSTM and not self.altered else None
