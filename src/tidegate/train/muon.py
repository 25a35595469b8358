"""Muon for the matrices of gates, AdamW for all else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


class Muon(Optimizer):
    """Momentum, orthogonalised gate by gate, for `matrices`; AdamW for the parameters in `others`.

        M = μ M + G        U = G + μ M        W = W − lr · (0.2 √max(rows, columns) · orthogonal(U) + λ W)

    `matrices` come with the number of gate blocks along their rows: a gate's rows are a matrix of their own, and
    orthogonalised with the others they would share one scale. The factor makes updates as large as AdamW's, so that
    both take the same `lr` and `weight_decay`. Kernels of convolutions are flattened: a row for each channel they give.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the factor, Liu et al. 2025
    (2502.16982), equation 4. Deviations: the matrices are split by gates, which neither mentions; products are taken in
    the parameters' dtype, not in bfloat16.
    """

    def __init__(
        self, matrices: Sequence[tuple[nn.Parameter, int]], others: list[dict[str, Any]], *, lr: float,
        weight_decay: float = 0.0, momentum: float = 0.95,
    ) -> None:  # fmt: skip
        own = {
            "params": [matrix for matrix, _ in matrices],
            "blocks": [blocks for _, blocks in matrices],
            "weight_decay": weight_decay,
            "momentum": momentum,
        }
        self._adamw = AdamW(others, lr=lr, fused=True) if others else None
        theirs = [] if self._adamw is None else self._adamw.param_groups
        super().__init__([*([own] if matrices else []), *theirs], {"lr": lr})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_adamw": self._adamw}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, after `closure` if there is one, whose loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        own = [group for group in self.param_groups if "blocks" in group]
        for group in own:
            for matrix, blocks in zip(group["params"], group["blocks"], strict=True):
                if matrix.grad is not None:
                    self._move(matrix, blocks, group)
        if self._adamw is not None:
            # One state for both, so that it is saved, loaded and moved as any optimizer's is.
            self._adamw.state, self._adamw.param_groups = self.state, self.param_groups[len(own) :]
            self._adamw.step()
        return loss

    def _move(self, matrix: nn.Parameter, blocks: int, group: dict[str, Any]) -> None:
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        moment = state["momentum_buffer"]
        moment.mul_(group["momentum"]).add_(matrix.grad)
        update = matrix.grad + group["momentum"] * moment
        parts = update.unflatten(0, (blocks, -1)).flatten(2)
        scale = 0.2 * math.sqrt(max(parts.shape[1:]))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.sub_(orthogonal(parts).reshape(matrix.shape), alpha=group["lr"] * scale)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly the nearest semi-orthogonal matrices of `matrices` [N, A, B].

    Singular values come to about 0.7 to 1.2, those far below the largest to less. Five Newton-Schulz iterations with
    the coefficients of Jordan et al. 2024.
    """
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x
