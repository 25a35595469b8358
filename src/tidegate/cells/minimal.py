"""Gated cells with one gate."""

from __future__ import annotations

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("mgu")
class MGU(Cell):
    """Minimal gated unit: one gate resets and updates.

        z = σ(W_z x + U_z h + b_z)
        n = tanh(W_n x + U_n (z⊙h) + b_n)
        h' = (1−z)⊙h + z⊙n

    Source: Zhou, Wu, Zhang & Zhou 2016 (1603.09420), table 1. Deviations: the gate is named z, not f, because it
    lets the new in where it is open; two bias vectors.
    """

    gates = ("z", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_z, x_n = self.split(x)
        z = sigmoid(x_z + self.recurrent("z", h))
        n = self.candidate(tanh(x_n + self.recurrent("n", z * h)))
        return (1 - z) * h + z * n


@CELLS.add("ugrnn")
class UGRNN(Cell):
    """Update gate recurrent network: a vanilla recurrence behind one gate.

        f = σ(W_f x + U_f h + b_f)    n = tanh(W_n x + U_n h + b_n)
        h' = f⊙h + (1−f)⊙n

    Source: Collins, Sohl-Dickstein & Sussillo 2016 (1611.09913), its UGRNN, whose g is f here and c is n.
    Deviations: two bias vectors; the paper's fixed forget bias is `init="forget:1"`.
    """

    gates = ("f", "n")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        f, n = self.gate(x, h)
        f = sigmoid(f)
        return f * h + (1 - f) * self.candidate(tanh(n))


@CELLS.add("intersection")
class IntersectionRNN(Cell):
    """Intersection network (+RNN): one gate across time, one across depth.

        u = relu(W_u x + U_u h + b_u)            n = tanh(W_n x + U_n h + b_n)
        depth = σ(W_d x + U_d h + b_d)           f = σ(W_f x + U_f h + b_f)
        y' = depth⊙(W_p x + b_p) + (1−depth)⊙u   h' = f⊙h + (1−f)⊙n

    y, the output, is the first state and h the second; no step reads y.

    Source: Collins, Sohl-Dickstein & Sussillo 2016 (1611.09913), its +RNN: u, n, depth and f are its y_in,
    h_in, g_y and g_h. Deviations: the input is always projected by W_p, which the paper does in the first
    layer only; two bias vectors; no fixed bias in the gates (`init={"f": "forget:1"}`).
    """

    gates = ("u", "n", "depth", "f", "p")
    recurrent_gates = ("u", "n", "depth", "f")
    states = ("y", "h")

    def step(self, x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override] # noqa: ARG002
        u, n, depth, f, p = self.gate(x, h)
        depth, f = sigmoid(depth), sigmoid(f)
        return depth * p + (1 - depth) * u.relu(), f * h + (1 - f) * self.candidate(tanh(n))


@CELLS.add("star")
class STAR(Cell):
    """Stackable recurrent cell: one gate, whose candidate does not look at the past.

        k = σ(W_k x + U_k h + b_k)    n = tanh(W_n x + b_n)
        h' = tanh((1−k)⊙h + k⊙n)

    Source: Turkoglu, D'Aronco, Wegner & Schindler 2019 (1911.11033), its STAR cell; the paper's z is n here.
    Deviation: two bias vectors in k.
    """

    gates = ("k", "n")
    recurrent_gates = ("k",)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        k, n = self.gate(x, h)
        k = sigmoid(k)
        return tanh((1 - k) * h + k * self.candidate(tanh(n)))
