"""Small cells: a vanilla recurrence with a weighted residual, or with a gate that shares its matrices."""

from __future__ import annotations

from typing import Any

from torch import Tensor, sigmoid, tanh

from tidegate.cells.base import CELLS, Cell


@CELLS.add("fastrnn")
class FastRNN(Cell):
    """Vanilla recurrence with a weighted residual: two numbers more than `Elman`.

        n = tanh(W x + U h + b)
        h' = σ(α) n + σ(β) h

    α is `alpha` [1], at first −3, and β `beta` [1], at first 3.

    Source: Kusupati et al. 2018 (1901.02358), equation 1; its α and β are σ(α) and σ(β) here, as in the authors'
    code. Deviations: two bias vectors; W and U are neither low-rank nor sparse.
    """

    gates = ("n",)

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.alpha = self.own("alpha", 1, fill=-3.0)
        self.beta = self.own("beta", 1, fill=3.0)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return sigmoid(self.alpha) * self.candidate(tanh(n)) + sigmoid(self.beta) * h


@CELLS.add("fastgrnn")
class FastGRNN(Cell):
    """Gated recurrence whose gate and candidate share both matrices.

        p = W x + U h + b
        z = σ(p + b_z)    n = tanh(p)
        h' = (σ(ζ)(1−z) + σ(ν))⊙n + z⊙h

    b_z is `bias_z` [H], ζ `zeta` [1], at first 1, and ν `nu` [1], at first −4.

    Source: Kusupati et al. 2018 (1901.02358), section 3, FastGRNN; its ζ and ν are σ(ζ) and σ(ν) here, as in the
    authors' code. Deviations: the gate's bias is counted from the candidate's, so the paper's is b + b_z; two bias
    vectors; W and U are neither low-rank nor sparse.
    """

    gates = ("n",)

    bias_z: Tensor | None

    def __init__(self, input_size: int, hidden_size: int, **options: Any) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.zeta = self.own("zeta", 1, fill=1.0)
        self.nu = self.own("nu", 1, fill=-4.0)
        if self.bias:
            self.own("bias_z", hidden_size)
        else:
            self.register_parameter("bias_z", None)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (p,) = self.gate(x, h)
        z = sigmoid(p if self.bias_z is None else p + self.bias_z)
        n = self.candidate(tanh(p))
        return (sigmoid(self.zeta) * (1 - z) + sigmoid(self.nu)) * n + z * h
