"""Cells that a search found."""

from __future__ import annotations

from torch import Tensor, relu, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("nas")
class NASCell(Cell):
    """The cell that neural architecture search found for language modelling.

        p_k = W_k x + b_k    q_k = U_k h + b_hk    for k = 0 … 7
        a = tanh(σ(p_0 + q_0)⊙relu(p_1 + q_1))         b = tanh(σ(p_2 + q_2) + relu(p_3⊙q_3))
        d = tanh(tanh(p_4 + q_4)⊙σ(p_5 + q_5))         e = σ(tanh(p_6 + q_6) + σ(p_7 + q_7))
        c' = tanh(a + c)⊙b                             h' = tanh(c'⊙tanh(d + e))

    Source: Zoph & Le 2016 (1611.01578), figure 8, read as in TensorFlow's `NASCell`. Deviation: two bias vectors,
    the second in the product p_3⊙q_3 too.
    """

    gates = ("k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7")
    states = ("h", "c")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        p, q = self.products(x, h)
        a = tanh(sigmoid(p[0] + q[0]) * relu(p[1] + q[1]))
        b = tanh(sigmoid(p[2] + q[2]) + relu(p[3] * q[3]))
        d = tanh(tanh(p[4] + q[4]) * sigmoid(p[5] + q[5]))
        e = sigmoid(tanh(p[6] + q[6]) + sigmoid(p[7] + q[7]))
        c = tanh(self.candidate(a) + c) * b
        return tanh(c * tanh(d + e)), c


@CELLS.add("mut1")
class MUT1(Cell):
    """The first of three cells that an evolutionary search preferred to the GRU.

        z = σ(W_z x + b_z)    r = σ(W_r x + U_r h + b_r)
        n = tanh(U_n (r⊙h) + tanh(W_n x + b_n) + b_hn)
        h' = (1−z)⊙h + z⊙n

    Source: Jozefowicz, Zaremba & Sutskever 2015, An Empirical Exploration of Recurrent Network Architectures (ICML),
    section 3.3. Deviations: the candidate's inner tanh(x) is that of a projection, so that x need not be H wide;
    two bias vectors.
    """

    gates = ("z", "r", "n")
    recurrent_gates = ("r", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        z, x_r, x_n = self.split(x)
        z = sigmoid(z)
        r = sigmoid(x_r + self.recurrent("r", h))
        n = self.candidate(tanh(self.recurrent("n", r * h) + tanh(x_n)))
        return (1 - z) * h + z * n


@CELLS.add("mut2")
class MUT2(Cell):
    """The second of three cells that an evolutionary search preferred to the GRU.

        z = σ(W_z x + U_z h + b_z)    r = σ(W_r x + U_r h + b_r)
        n = tanh(U_n (r⊙h) + W_n x + b_n)
        h' = (1−z)⊙h + z⊙n

    Source: Jozefowicz, Zaremba & Sutskever 2015 (ICML), section 3.3. Deviations: the paper adds x itself in r, and
    this a projection, so that x need not be H wide; the equations are then those of `GRUResetBefore`; two bias
    vectors.
    """

    gates = ("z", "r", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_z, x_r, x_n = self.split(x)
        z = sigmoid(x_z + self.recurrent("z", h))
        r = sigmoid(x_r + self.recurrent("r", h))
        n = self.candidate(tanh(self.recurrent("n", r * h) + x_n))
        return (1 - z) * h + z * n


@CELLS.add("mut3")
class MUT3(Cell):
    """The third of three cells that an evolutionary search preferred to the GRU.

        z = σ(W_z x + U_z tanh(h) + b_z)    r = σ(W_r x + U_r h + b_r)
        n = tanh(U_n (r⊙h) + W_n x + b_n)
        h' = (1−z)⊙h + z⊙n

    Source: Jozefowicz, Zaremba & Sutskever 2015 (ICML), section 3.3. Deviation: two bias vectors.
    """

    gates = ("z", "r", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_z, x_r, x_n = self.split(x)
        z = sigmoid(x_z + self.recurrent("z", tanh(h)))
        r = sigmoid(x_r + self.recurrent("r", h))
        n = self.candidate(tanh(self.recurrent("n", r * h) + x_n))
        return (1 - z) * h + z * n
