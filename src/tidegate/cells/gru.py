"""Gated recurrent units, in the three forms that differ in where the reset gate acts.

The weights of one form mean something else in another: they cannot be moved between them.
"""

from __future__ import annotations

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("gru")
class GRU(Cell):
    """Gated recurrent unit, reset after the product (cuDNN, `torch.nn`, Keras' default).

        r = σ(W_r x + U_r h + b_r)    z = σ(W_z x + U_z h + b_z)
        n = tanh(W_n x + b_ih + r⊙(U_n h + b_hh))
        h' = (1−z)⊙n + z⊙h

    Source: Cho et al. 2014 (1406.1078) with the reset moved behind the product, as in cuDNN (Appleyard et al.
    2016, 1604.01946). Here z keeps the past.
    """

    gates = ("r", "z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (x_r, x_z, x_n), (h_r, h_z, h_n) = self.products(x, h)
        r = sigmoid(x_r + h_r)
        z = sigmoid(x_z + h_z)
        n = self.candidate(tanh(x_n + r * h_n))
        return (1 - z) * n + z * h

    def native(self) -> str | None:
        return "gru" if type(self) is GRU and not self.altered else None


@CELLS.add("gru_reset_before")
class GRUResetBefore(Cell):
    """Gated recurrent unit, reset before the product.

        r = σ(W_r x + U_r h + b_r)    z = σ(W_z x + U_z h + b_z)
        n = tanh(W_n x + U_n (r⊙h) + b_n)
        h' = (1−z)⊙h + z⊙n

    Source: Chung et al. 2014 (1412.3555), section 3.2: z lets the new in. In Cho et al. 2014 it keeps the
    past; negate z's weights and bias to convert. Deviation: two bias vectors, whose sum is the paper's one.
    """

    gates = ("r", "z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_r, x_z, x_n = self.split(x)
        r = sigmoid(x_r + self.recurrent("r", h))
        z = sigmoid(x_z + self.recurrent("z", h))
        n = self.candidate(tanh(x_n + self.recurrent("n", r * h)))
        return (1 - z) * h + z * n


@CELLS.add("gru_merge")
class GRUMerge(Cell):
    """Gated recurrent unit with a merge gate: r keeps the input, its complement lets the past in.

        r = σ(W_r x + U_r h + b_r)    z = σ(W_z x + U_z h + b_z)
        n = tanh(W_n x + (1−r)⊙(U_n h) + b_n)
        h' = (1−z)⊙h + z⊙n

    The candidate's biases, both of them, stand outside the merge. z lets the new in.

    Source: no publication; a variant of Chung et al. 2014 (1412.3555), section 3.2. Deviations from it: r keeps
    the input, so the past enters by 1−r, and it acts after the product; two bias vectors.
    """

    gates = ("r", "z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_r, x_z, x_n = self.split(x)
        r = sigmoid(x_r + self.recurrent("r", h))
        z = sigmoid(x_z + self.recurrent("z", h))
        past = self.recurrent("n", h, bias=False)
        n = self.candidate(tanh(x_n + (1 - r) * past + self.recurrent_bias("n")))
        return (1 - z) * h + z * n
