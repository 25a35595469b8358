"""Long short-term memory with fewer gates, or with another road into them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import choice


@CELLS.add("lstm_cifg")
class LSTMCoupled(Cell):
    """Long short-term memory with coupled input and forget gates (CIFG).

        f, o = σ(W_• x + U_• h + b_•)    g = tanh(W_g x + U_g h + b_g)
        c' = f⊙c + (1−f)⊙g               h' = o⊙tanh(c')

    Source: Greff et al. 2015 (1503.04069), its variant CIFG. Deviations: the gate kept is f and i = 1−f, where the
    paper keeps i and has f = 1−i (negate the gate's weights and bias to convert); no peepholes; two bias vectors.
    """

    gates = ("f", "g", "o")
    states = ("h", "c")
    normed_values = ("c",)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        f, g, o = self.gate(x, h)
        f = sigmoid(f)
        c = f * c + (1 - f) * self.candidate(tanh(g))
        return sigmoid(o) * tanh(self.normed("c", c)), c


@CELLS.add("janet")
class JANET(Cell):
    """Just another network: long short-term memory with nothing but a forget gate.

        s = W_f x + U_f h + b_f    g = tanh(W_g x + U_g h + b_g)
        h' = σ(s)⊙h + (1−σ(s−β))⊙g

    `beta` β lets more of the new in than is forgotten; the paper's 1 unless given.

    Source: van der Westhuizen & Lasenby 2018 (1804.04849), section 3; its chrono initialisation is
    `init="chrono:T"`. Deviation: two bias vectors.
    """

    gates = ("f", "g")

    def __init__(self, input_size: int, hidden_size: int, *, beta: float = 1.0, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.beta = beta

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        s, g = self.gate(x, h)
        return sigmoid(s) * h + (1 - sigmoid(s - self.beta)) * self.candidate(tanh(g))


@CELLS.add("mlstm")
class MultiplicativeLSTM(Cell):
    """Multiplicative LSTM: every gate reads the product m of the input and the past.

        m = (W_m x + b_m)⊙(U_m h + b_hm)
        i, f, o = σ(W_• x + U_• m + b_•)    g = tanh(W_g x + U_g m + b_g)
        c' = f⊙c + i⊙g                      h' = o⊙tanh(c')

    Source: Krause, Lu, Murray & Renals 2016 (1609.07959), section 3. Deviations: biases in m, which the paper has
    not; two bias vectors in the gates. Not the matrix memory of xLSTM, which has the same short name.
    """

    gates = ("m", "i", "f", "g", "o")
    states = ("h", "c")
    normed_values = ("c",)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x_m, x_i, x_f, x_g, x_o = self.split(x)
        m = x_m * self.recurrent("m", h)
        i = sigmoid(x_i + self.recurrent("i", m))
        f = sigmoid(x_f + self.recurrent("f", m))
        g = self.candidate(tanh(x_g + self.recurrent("g", m)))
        o = sigmoid(x_o + self.recurrent("o", m))
        c = f * c + i * g
        return o * tanh(self.normed("c", c)), c


@CELLS.add("ran")
class RAN(Cell):
    """Recurrent additive network: the candidate does not look at the past, so c is a weighted sum of inputs.

        i, f = σ(W_• x + U_• h + b_•)    g = W_g x + b_g
        c' = f⊙c + i⊙g                   h' = tanh(c')

    With `output="identity"` the output is c' itself.

    Source: Lee, Levy & Zettlemoyer 2017 (1705.07393), section 2. Deviations: a bias in g, which the paper has
    not; two bias vectors in the gates.
    """

    gates = ("i", "f", "g")
    recurrent_gates = ("i", "f")
    states = ("h", "c")
    normed_values = ("c",)

    def __init__(self, input_size: int, hidden_size: int, *, output: str = "tanh", **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.output = choice(self, "output", output, ("tanh", "identity"))

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        i, f, g = self.gate(x, h)
        c = sigmoid(f) * c + sigmoid(i) * self.candidate(g)
        out = self.normed("c", c)
        return (tanh(out) if self.output == "tanh" else out), c
