"""Long short-term memory whose gates look at the cell state."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("lstm_peephole")
class LSTMPeephole(Cell):
    """Long short-term memory with diagonal peepholes; the output gate looks at the new cell state.

        i = σ(W_i x + U_i h + p_i⊙c + b_i)    f = σ(W_f x + U_f h + p_f⊙c + b_f)
        g = tanh(W_g x + U_g h + b_g)         c' = f⊙c + i⊙g
        o = σ(W_o x + U_o h + p_o⊙c' + b_o)   h' = o⊙tanh(c')

    p_i, p_f and p_o are `weight_ci`, `weight_cf` and `weight_co` [H]. With `candidate_peephole` also
    `g = tanh(W_g x + U_g h + p_g⊙c + b_g)`, p_g `weight_cg`. With `stop_gradient` no error flows back to c
    through a peephole: c in the four products is a constant to the gradient.

    Source: Graves 2013 (1308.0850), equations 7 to 11, whose gradient is the full one; `stop_gradient` is Gers &
    Schmidhuber 2000, Recurrent Nets that Time and Count, and Gers, Schraudolph & Schmidhuber 2002. Deviations:
    two bias vectors; neither paper has a peephole on the candidate.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    normed_values = ("c",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        candidate_peephole: bool = False,
        stop_gradient: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.candidate_peephole = candidate_peephole
        self.stop_gradient = stop_gradient
        for gate in "ifgo" if candidate_peephole else "ifo":
            self.own(f"weight_c{gate}", *self._peephole_shape())

    def _peephole_shape(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def _look(self, gate: str, c: Tensor) -> Tensor:
        weight: Tensor = getattr(self, f"weight_c{gate}")
        return weight * c

    def look(self, gate: str, c: Tensor) -> Tensor:
        """Return what one gate sees of the cell state, [B, H]."""
        return self._look(gate, c.detach() if self.stop_gradient else c)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        i, f, g, o = self.gate(x, h)
        i, f = sigmoid(i + self.look("i", c)), sigmoid(f + self.look("f", c))
        g = tanh(g + self.look("g", c) if self.candidate_peephole else g)
        c = f * c + i * self.candidate(g)
        o = sigmoid(o + self.look("o", c))
        return o * tanh(self.normed("c", c)), c


@CELLS.add("lstm_peephole_full")
class LSTMPeepholeFull(LSTMPeephole):
    """Long short-term memory with full peephole matrices; the output gate looks at the new cell state.

        i = σ(W_i x + U_i h + P_i c + b_i)    f = σ(W_f x + U_f h + P_f c + b_f)
        g = tanh(W_g x + U_g h + b_g)         c' = f⊙c + i⊙g
        o = σ(W_o x + U_o h + P_o c' + b_o)   h' = o⊙tanh(c')

    P_i, P_f and P_o are `weight_ci`, `weight_cf` and `weight_co` [H, H]. `candidate_peephole` (P_g, `weight_cg`)
    and `stop_gradient` are those of `LSTMPeephole`.

    Source: Graves 2013 (1308.0850), equations 7 to 11, read with matrices W_ci, W_cf, W_co. Deviations: the paper
    itself takes these matrices to be diagonal; two bias vectors.
    """

    def _peephole_shape(self) -> tuple[int, ...]:
        return (self.hidden_size, self.hidden_size)

    def _look(self, gate: str, c: Tensor) -> Tensor:
        return self.linear(c, getattr(self, f"weight_c{gate}"))
