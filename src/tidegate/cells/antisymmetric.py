"""Cells that are stable differential equations: their recurrent matrix is antisymmetric, slightly damped."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("antisymmetric")
class AntisymmetricRNN(Cell):
    """Antisymmetric network: a stable differential equation taken in steps.

        A = U − Uᵀ
        h' = h + ε tanh(W x + A h − γ h + b)

    U is `weight_hh` [H, H]. `epsilon` ε is the step's length and `gamma` γ the damping that keeps the discrete
    steps stable.

    Source: Chang, Chen, Haber & Chi 2019 (1902.09689), section 3. Deviations: U is a full matrix of which the
    difference is taken, where the paper keeps its upper triangle; two bias vectors; `epsilon` 0.1 and `gamma` 0.01
    unless given, where the paper searches them for each task.
    """

    gates: ClassVar[tuple[str, ...]] = ("n",)

    def __init__(
        self, input_size: int, hidden_size: int, *, epsilon: float = 0.1, gamma: float = 0.01, **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.epsilon, self.gamma = epsilon, gamma

    def swirl(self, h: Tensor) -> Tensor:
        """Return `A h − γ h + b_hh`, [B, H]."""
        antisymmetric = self.recurrent_weight - self.recurrent_weight.transpose(0, 1)
        return self.recurrent("n", h, weight=antisymmetric) - self.gamma * h

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return h + self.epsilon * self.candidate(tanh(x + self.swirl(h)))


@CELLS.add("antisymmetric_gated")
class AntisymmetricGated(AntisymmetricRNN):
    """Antisymmetric network with an input gate that shares its recurrent matrix.

        A = U − Uᵀ
        z = σ(W_z x + A h − γ h + b_z)
        h' = h + ε z⊙tanh(W_n x + A h − γ h + b_n)

    U, `epsilon` ε and `gamma` γ are those of `AntisymmetricRNN`; the bias beside A h, `bias_hh` [H], is one for both.

    Source: Chang, Chen, Haber & Chi 2019 (1902.09689), section 3, its gated form. Deviations: as in `AntisymmetricRNN`.
    """

    gates = ("z", "n")
    recurrent_gates = ("n",)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        x_z, x_n = self.split(x)
        past = self.swirl(h)
        return h + self.epsilon * sigmoid(x_z + past) * self.candidate(tanh(x_n + past))
