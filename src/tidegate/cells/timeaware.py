"""Cells that know how much time has passed, or which inputs were seen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, exp, relu, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import choice
from tidegate.errors import ShapeError


@CELLS.add("gru_d")
class GRUD(Cell):
    """Gated recurrent unit for values that are missing, whose inputs and state decay while nothing is seen.

        δ = elapsed + waited                     waited' = (1−m)⊙δ
        γ_x = exp(−relu(w_x⊙δ + b_x))            γ_h = exp(−relu(W_γ δ + b_γ))
        x̂ = m⊙x + (1−m)⊙γ_x⊙last                 last' = m⊙x + (1−m)⊙last
        h̄ = γ_h⊙h
        r, z = σ(W_• x̂ + U_• h̄ + V_• m + b_•)    n = tanh(W_n x̂ + U_n (r⊙h̄) + V_n m + b_n)
        h' = (1−z)⊙h̄ + z⊙n

    `elapsed` [B, 1] is the time since the step before; `observed` m [B, I] is 1 where x was measured and 0 where
    it was not: what x holds there does not matter, NaN included. The state is (h, last, waited): the last value of
    each input, and how long ago it was seen. w_x and b_x are `decay_x` and `decay_x_bias` [I], W_γ and b_γ `decay_h`
    [H, I] and `decay_h_bias` [H], V `weight_m` [3H, I].

    Source: Che, Purushotham, Cho, Sontag & Liu 2016 (1606.01865), its GRU-D. Deviations: the mean that
    x̂ decays to is 0, so inputs should be standardised; two bias vectors; `variational_dropout` masks x̂. A first
    layer only: the outputs of a layer below are never missing. Zoneout belongs on h alone: `zoneout=(rate, 0, 0)`.
    """

    gates = ("r", "z", "n")
    states = ("h", "last", "waited")
    inputs = ("elapsed", "observed")

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.weight_m = self.own("weight_m", 3 * hidden_size, input_size)
        self.decay_x = self.own("decay_x", input_size)
        self.decay_x_bias = self.own("decay_x_bias", input_size)
        self.decay_h = self.own("decay_h", hidden_size, input_size)
        self.decay_h_bias = self.own("decay_h_bias", hidden_size)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return (self.hidden_size, self.input_size, self.input_size)

    def project(self, x: Tensor) -> Tensor:
        """Return `x` itself: what enters the products is known inside the step only."""
        return x

    def step(  # type: ignore[override]
        self, x: Tensor, h: Tensor, last: Tensor, waited: Tensor, *, elapsed: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if observed.shape[-1] != self.input_size:
            raise ShapeError(
                "one step of GRUD",
                expected=f"observed to be {self.input_size} wide, as x is",
                got=f"{observed.shape[-1]}",
                hint="one flag for each input; only a first layer can know them",
            )
        delta = elapsed + waited
        decay = exp(-relu(self.decay_x * delta + self.decay_x_bias))
        seen = observed > 0
        filled = torch.where(seen, x, decay * last)
        h = h * exp(-relu(self.linear(delta, self.decay_h, self.decay_h_bias)))
        x_r, x_z, x_n = self.split(super().project(filled) + self.linear(observed, self.weight_m))
        r = sigmoid(x_r + self.recurrent("r", h))
        z = sigmoid(x_z + self.recurrent("z", h))
        n = self.candidate(tanh(x_n + self.recurrent("n", r * h)))
        return (1 - z) * h + z * n, torch.where(seen, x, last), (1 - observed) * delta


@CELLS.add("t_lstm")
class TimeLSTM(Cell):
    """Time-aware LSTM: the short-term part of its memory is discounted by the time that has passed.

        short = tanh(W_d c + b_d)                 past = c − short + g(elapsed) short
        i, f, o = σ(W_• x + U_• h + b_•)          g = tanh(W_g x + U_g h + b_g)
        c' = f⊙past + i⊙g                         h' = o⊙tanh(c')

    `elapsed` [B, 1] is the time since the step before, at least 0. `discount="log"` is g(Δ) = 1/ln(e + Δ), for long
    times, and `discount="inverse"` g(Δ) = 1/Δ, for short ones, all above 0. W_d and b_d are `weight_d` [H, H] and
    `bias_d` [H].

    Source: Baytas et al. 2017, Patient Subtyping via Time-Aware LSTM Networks (KDD), section 3. Deviation: two
    bias vectors in the gates.
    """

    gates = ("i", "f", "g", "o")
    states = ("h", "c")
    normed_values = ("c",)
    inputs = ("elapsed",)

    bias_d: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, *, discount: str = "log", **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.discount = choice(self, "discount", discount, ("log", "inverse"))
        self.weight_d = self.own("weight_d", hidden_size, hidden_size)
        if self.bias:
            self.own("bias_d", hidden_size)
        else:
            self.register_parameter("bias_d", None)

    def step(  # type: ignore[override]
        self, x: Tensor, h: Tensor, c: Tensor, *, elapsed: Tensor
    ) -> tuple[Tensor, Tensor]:
        short = tanh(self.linear(c, self.weight_d, self.bias_d))
        left = 1 / (torch.log(elapsed + torch.e) if self.discount == "log" else elapsed)
        past = c - short + left * short
        i, f, g, o = self.gate(x, h)
        c = sigmoid(f) * past + sigmoid(i) * self.candidate(tanh(g))
        return sigmoid(o) * tanh(self.normed("c", c)), c


@CELLS.add("cfc")
class CfC(Cell):
    """Closed-form continuous-time network: two candidates, and a gate between them that time moves.

        g, n = tanh(W_• x + U_• h + b_•)    a, b = W_• x + U_• h + b_•
        s = σ(a⊙elapsed + b)
        h' = (1−s)⊙g + s⊙n

    `elapsed` [B, 1] is the time since the step before.

    Source: Hasani et al. 2022 (2106.13898), the closed form with two heads and a sigmoid time gate, its
    `σ(−f t)⊙g + (1−σ(−f t))⊙h`, f being a here, with the gate's offset b that the authors' code adds ("default"
    mode). Deviations: the heads read [x, h] without a backbone in front of them; two bias vectors.
    """

    gates = ("g", "n", "a", "b")
    inputs = ("elapsed",)

    def step(self, x: Tensor, h: Tensor, *, elapsed: Tensor) -> Tensor:  # type: ignore[override]
        g, n, a, b = self.gate(x, h)
        s = sigmoid(a * elapsed + b)
        return (1 - s) * self.candidate(tanh(g)) + s * self.candidate(tanh(n))
