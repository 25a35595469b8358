"""A8: minGRU, minLSTM, QRNN, SRU; and what every linear cell promises to a scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tidegate.cells import CELLS, Linear
from tidegate.compile.select import trajectory, unroll
from tidegate.errors import ShapeError

from .paper import Array, B, I, T, alone, build, run, weights, σ

LINEAR = [name for name, cell in CELLS.items() if issubclass(cell, Linear)]


def test_mingru() -> None:
    cell = build("mingru")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        z = σ(alone(w, "z", x))
        return [(1 - z) * h + z * alone(w, "n", x)]

    run(cell, equation)


def test_minlstm() -> None:
    cell = build("minlstm")
    w = weights(cell)

    def equation(x: Array, h: Array) -> list[Array]:
        f, i = σ(alone(w, "f", x)), σ(alone(w, "i", x))
        return [f / (f + i) * h + i / (f + i) * alone(w, "n", x)]

    run(cell, equation)


def test_qrnn() -> None:
    cell = build("qrnn")
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        f, o = σ(alone(w, "f", x)), σ(alone(w, "o", x))
        c = f * c + (1 - f) * np.tanh(alone(w, "n", x))
        return [o * c, c]

    run(cell, equation)


def test_sru() -> None:
    cell = build("sru")
    w = weights(cell)

    def equation(x: Array, h: Array, c: Array) -> list[Array]:
        f, r = σ(alone(w, "f", x)), σ(alone(w, "r", x))
        c = f * c + (1 - f) * alone(w, "n", x)
        return [r * np.tanh(c) + (1 - r) * alone(w, "p", x), c]

    run(cell, equation)


def test_linear_cells_are_those_of_the_catalogue() -> None:
    assert set(LINEAR) == {"mingru", "minlstm", "qrnn", "sru", "lru", "rglru"}
    for name in LINEAR:
        assert "weight_hh" not in build(name).state_dict()


def closed_form(cell: Linear, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`c_t = (Π a) c_0 + Σ_s (Π_{r>s} a_r) b_s`, as complex numbers where the cell's are: the oracle of a scan."""

    def number(v: Tensor) -> Tensor:
        return torch.complex(*v.chunk(2, -1)) if cell.is_complex else v

    a, b, c = number(a), number(b), number(c)
    states = []
    for t in range(b.shape[1]):
        total = a[:, : t + 1].prod(1) * c
        for s in range(t + 1):
            total = total + a[:, s + 1 : t + 1].prod(1) * b[:, s]
        states.append(torch.cat([total.real, total.imag], -1) if cell.is_complex else total)
    return torch.stack(states, 1)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_all_steps_at_once_equal_the_loop(name: str, norm: bool, dropout: float) -> None:
    """a, b from all of x, c by the closed form, outputs from all of c: what the loop gives, noise included."""
    torch.manual_seed(0)
    cell = CELLS[name](I, 6, dtype=torch.float64, layer_norm=norm, recurrent_dropout=dropout)
    assert isinstance(cell, Linear)
    x = torch.randn(B, T, I, dtype=torch.float64)
    start = tuple(torch.randn(B, size, dtype=torch.float64) for size in cell.state_sizes)
    torch.manual_seed(7)
    every = trajectory(cell, x, cell.pack(start), backend="reference")
    torch.manual_seed(7)
    given = cell.draw(x)
    with cell.bound({**given.rows, **given.steps}):
        projected = cell.project(x)
        a, b = cell.coefficients(projected)
        c = closed_form(cell, a.expand_as(b), b, start[-1])
        outputs = cell.emit(projected, c)
    torch.testing.assert_close(c, every[-1], rtol=0, atol=1e-12)
    torch.testing.assert_close(outputs, every[0], rtol=0, atol=1e-12)
    assert cell.carried == cell.states[-1]


@pytest.mark.parametrize("name", LINEAR)
def test_no_step_reads_what_is_not_carried(name: str) -> None:
    cell = build(name)
    x = torch.randn(B, T, I, dtype=torch.float64)
    states = [torch.randn(B, size, dtype=torch.float64) for size in cell.state_sizes]
    y, _ = unroll(cell, x, cell.pack(tuple(states)), backend="reference")
    if len(states) > 1:
        states[0] = states[0] + 1
        again, _ = unroll(cell, x, cell.pack(tuple(states)), backend="reference")
        assert torch.equal(y, again)


@pytest.mark.parametrize("name", LINEAR)
def test_a_decay_never_exceeds_1(name: str) -> None:
    cell = build(name)
    assert isinstance(cell, Linear)
    a, _ = cell.coefficients(cell.project(10 * torch.randn(50, I, dtype=torch.float64)))
    size = torch.complex(*a.chunk(2, -1)).abs() if cell.is_complex else a
    assert float(size.min()) >= 0
    assert float(size.max()) <= 1


@pytest.mark.parametrize("backend", ["auto", "scan", "llvm", "reference"])
@pytest.mark.parametrize(
    "given",
    [lambda a, b: None, lambda a, b: a, lambda a, b: (a, b[..., :3]), lambda a, b: (a, 0.0)],
)
def test_coefficients_that_are_none_are_told(given: object, backend: str) -> None:
    kind = type("Mine", (Linear,), {"gates": ("a", "b"), "coefficients": lambda self, x: given(*self.split(x))})
    with pytest.raises(
        ShapeError, match=r"running Mine; expected coefficients\(x\) to give a and b, \[2, (5, )?4\] each"
    ):
        unroll(kind(3, 4), torch.randn(2, 5, 3), backend=backend)
