"""Under autocast every cell runs on every backend that does not refuse, in the weights' dtype throughout."""

from __future__ import annotations

import itertools
import os

import pytest
import torch
from torch import Tensor

from tidegate import nn as tnn
from tidegate.cells import CELLS, Cell
from tidegate.compile.call import Call
from tidegate.compile.llvm.host import host
from tidegate.compile.select import BACKENDS, choose
from tidegate.errors import BackendError

from .cases import STOCK, VARIANTS, Mine, gradients, random_state, some_lengths, states_of, unroll

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize(("name", "ragged", "given"), list(itertools.product(VARIANTS, (False, True), (False, True))))
def test_states_and_outputs_keep_the_weights_dtype(name: str, ragged: bool, given: bool) -> None:
    torch.manual_seed(0)
    cell: Cell = VARIANTS[name](5, 4)
    x = torch.randn(3, 6, 5, requires_grad=True)
    lengths = some_lengths(3, 6) if ragged else None
    state = random_state(cell, 3) if given else None
    y, end = unroll(cell, x, state, lengths, backend="reference")
    for read in (x, x.bfloat16()):
        with autocast():
            short, short_end = unroll(cell, read, state, lengths)
        everything = [short, *states_of(cell, short_end)]
        assert {t.dtype for t in everything} == {torch.float32}
        for a, b in zip(everything, [y, *states_of(cell, end)], strict=True):
            assert float((a - b).detach().abs().max()) < 0.1
        assert all(g.isfinite().all() for g in gradients(everything, [x, *cell.parameters()]))
    assert not torch.equal(short, y)


@pytest.mark.parametrize("name", STOCK)
def test_kernels_multiply_as_autocast_does_where_the_machine_can(name: str) -> None:
    """Many rows: a matrix unit takes bfloat16. Without one all is float32, and so it is again after autocast."""
    torch.manual_seed(0)
    cell: Cell = VARIANTS[name](40, 64)
    x = torch.randn(32 * (os.cpu_count() or 1), 12, 40)

    def run(backend: str, short: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            y, _ = unroll(cell, x, backend=backend)
        return [y.detach(), *gradients([y], list(cell.parameters()))]

    plain, short, again = (run("llvm", each) for each in (False, True, False))
    for a, b, c, d in zip(plain, short, again, run("reference", True), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(a, b) == (host().isa != "amx")
        # Both round what is multiplied to 8 bits.
        assert float((b - a).norm()) < 0.01 * float(a.norm())
        assert float((b - a).norm()) < 1.5 * float((d - a).norm())


class Solving(Cell):
    """A recurrence by a matrix that its weights alone decide."""

    gates = ("n",)

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        self.u, self.v = (torch.nn.Parameter(torch.eye(hidden_size) + 0.1 * torch.randn(hidden_size, hidden_size))
                          for _ in range(2))  # fmt: skip

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (n,) = self.split(x)
        return torch.tanh(n + h @ torch.linalg.solve(self.u @ self.v, self.v))


def test_what_weights_alone_decide_is_computed_in_full() -> None:
    torch.manual_seed(0)
    cell, x = Solving(5, 6), torch.randn(2, 7, 5)
    y, _ = unroll(cell, x, backend="llvm")
    with autocast():
        short, _ = unroll(cell, x, backend="llvm")
    # Too few rows for a matrix unit: nothing is rounded.
    assert torch.equal(y, short)


def test_torchs_kernels_say_that_they_do_not_run_under_autocast() -> None:
    cell, x = CELLS["lstm"](5, 256), torch.randn(3, 6, 5)
    assert choose(Call(cell, x)) == "aten"
    with autocast():
        assert choose(Call(cell, x)) == "llvm"
        with pytest.raises(BackendError, match="on the CPU do not run under autocast"):
            unroll(cell, x, backend="aten")
        assert BACKENDS["reference"].refuses(Call(cell, x)) is None


@pytest.mark.parametrize("connection", [None, "residual", "highway", "dense", "skip"])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_layers_keep_it_too(connection: str, norm: str) -> None:
    lengths = torch.tensor([6, 0, 3])
    plain = connection is None and norm is None
    for kind in (Mine, *(CELLS[n] for n in CELLS if n in STOCK or (plain and not CELLS[n].inputs))):
        layer = tnn.Recurrent(kind(5, 4), layers=2, bidirectional=True, connection=connection, norm=norm)
        for given in (None, lengths):
            with autocast():
                y, state = layer(torch.randn(3, 6, 5), lengths=given)
            tensors: list[Tensor] = [y, *([state] if isinstance(state, Tensor) else state)]
            assert {t.dtype for t in tensors} == {torch.float32}
            sum(t.sum() for t in tensors).backward()  # type: ignore[union-attr]


def test_one_step_keeps_it() -> None:
    cell = Mine(5, 4)
    with autocast():
        y, state = cell(torch.randn(3, 5).bfloat16())
    assert y.dtype == state.dtype == torch.float32
