"""What a test needs to hold a cell against its paper: its weights by gate, and a comparison over several steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from tidegate.cells import CELLS, Cell
from tidegate.compile.select import unroll

Array = np.ndarray
B, T, I, H = 3, 5, 4, 6  # noqa: E741


def σ(v: Array) -> Array:
    return 1 / (1 + np.exp(-v))


class Weights(NamedTuple):
    """`W`, `U`, `b`, `c` of each gate (the input's part and the recurrent one), `P` every parameter by name."""

    W: dict[str, Array]
    U: dict[str, Array]
    b: dict[str, Array]
    c: dict[str, Array]
    P: dict[str, Array]


def weights(cell: Cell) -> Weights:
    parameters = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    recurrent = cell.gates if cell.recurrent_gates is None else cell.recurrent_gates

    def blocks(name: str, gates: Sequence[str]) -> dict[str, Array]:
        return dict(zip(gates, np.split(parameters[name], len(gates)), strict=True)) if gates else {}

    return Weights(
        blocks("weight_ih", cell.gates),
        blocks("weight_hh", recurrent),
        blocks("bias_ih", cell.gates),
        blocks("bias_hh", recurrent),
        parameters,
    )


def build(name: str, **options: object) -> Cell:
    torch.manual_seed(0)
    return CELLS[name](I, H, dtype=torch.float64, **options)


def run(
    cell: Cell,
    equation: Callable[..., Sequence[Array]],
    *,
    start: Sequence[Array] | None = None,
    compare_outputs: bool = True,
    **inputs: Array,
) -> None:
    """Compare the cell over T steps with `equation(x, *states, **inputs) -> states`, to 1e-12."""
    x = torch.randn(B, T, I, dtype=torch.float64)
    drawn = [torch.randn(B, size, dtype=torch.float64).numpy() for size in cell.state_sizes]
    states: Sequence[Array] = drawn if start is None else start
    before = cell.pack(tuple(torch.as_tensor(s) for s in states))
    given: dict[str, Any] = {name: torch.as_tensor(value) for name, value in inputs.items()}
    y, end = unroll(cell, x, before, backend="reference", **given)
    for t in range(T):
        states = equation(x[:, t].numpy(), *states, **{name: value[:, t] for name, value in inputs.items()})
        if compare_outputs:
            np.testing.assert_allclose(y[:, t].detach().numpy(), states[0], rtol=0, atol=1e-12)
    for ours, theirs in zip(cell.unpack(end), states, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=1e-12)


def both(w: Weights, gate: str, x: Array, h: Array) -> Array:
    """`W x + U h + b`, the paper's one bias being the sum of two."""
    return x @ w.W[gate].T + h @ w.U[gate].T + w.b[gate] + w.c[gate]


def alone(w: Weights, gate: str, x: Array) -> Array:
    """`W x + b` of a gate that has no recurrent product."""
    return x @ w.W[gate].T + w.b[gate]
