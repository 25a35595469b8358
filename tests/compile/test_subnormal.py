"""Numbers below the least normal one count as 0 in kernels, and nowhere else."""

from __future__ import annotations

from array import array

import pytest
import torch

from tidegate import nn
from tidegate.cells import Cell, Elman
from tidegate.cells.linear import Linear
from tidegate.compile.lines import sum_lines
from tidegate.compile.llvm import threads, windows
from tidegate.compile.llvm.amx import EXACT
from tidegate.compile.llvm.host import host


class Halving(Cell):
    """A state that decays by half a step, once it is small."""

    gates = ("n",)

    def step(self, x, h):
        (n,) = self.gate(x, h)
        return torch.tanh(0.5 * h + 0.0 * n)


class Decaying(Linear):
    """The same as a linear recurrence, for the scan."""

    gates = ("n",)

    def coefficients(self, x):
        return 0.0 * x + 0.5, 0.0 * x


def subnormal(values: torch.Tensor) -> torch.Tensor:
    return (values != 0) & (values.abs() < torch.finfo(values.dtype).tiny)


def still_kept(dtype: torch.dtype) -> bool:
    """Whether this thread computes with subnormal numbers as it did before."""
    return bool(subnormal(torch.tensor([torch.finfo(dtype).tiny], dtype=dtype) * 0.5).all())


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float32, 200), (torch.float64, 1200)])
@pytest.mark.parametrize(("cell", "backend"), [(Halving, "llvm"), (Decaying, "scan")])
@pytest.mark.parametrize("rows", [1, 40])
def test_states_that_decay_end_at_zero(cell, backend, rows, dtype, steps) -> None:
    layer = nn.Recurrent(cell(3, 3), backend=backend).to(dtype)
    x, h = torch.zeros(rows, steps, 3, dtype=dtype), torch.ones(1, rows, 3, dtype=dtype)
    y, last = layer(x, h)
    assert (last == 0).all()
    assert not subnormal(y).any()
    assert still_kept(dtype)
    layer.backend = "reference"
    loop, _ = layer(x, h)
    assert subnormal(loop).any()
    torch.testing.assert_close(y, loop, rtol=1e-5, atol=torch.finfo(dtype).tiny)


@pytest.mark.parametrize("rows", [1, 40])
def test_gradients_that_vanish_end_at_zero(rows) -> None:
    torch.manual_seed(0)
    layer = nn.Recurrent(Elman(2, 16), backend="llvm")
    with torch.no_grad():
        layer.cells[0].weight_hh.mul_(0.5)
    x = torch.randn(rows, 300, 2, requires_grad=True)
    layer(x)[0][:, -1].sum().backward()
    assert x.grad is not None
    assert (x.grad[:, 0] == 0).all()
    assert (x.grad[:, -1] != 0).all()
    assert not subnormal(x.grad).any()
    assert still_kept(torch.float32)


@pytest.mark.parametrize("way", ["windows", "lines"])
def test_sums_over_lines_flush_and_leave_the_thread_as_it_was(way) -> None:
    if way == "lines" and host().isa != "amx":
        pytest.skip("this machine has no matrix unit (AMX), whose sums are tried here")
    tiny = torch.finfo(torch.float32).tiny
    first, second = torch.full((512, 128), tiny), torch.full((512, 128), 1e-3)
    if way == "lines":
        found = torch.empty(128, 128)
        sum_lines(first, second, found, host(), EXACT)
    else:
        found = windows_sum(first, second)
    assert (found == 0).all()
    assert still_kept(torch.float32)


def windows_sum(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return Pᵀ Q by the vector kernel."""
    found = torch.empty(first.shape[1], second.shape[1])
    told = {
        "first": first.data_ptr(), "first_stride": first.stride(0), "second": second.data_ptr(),
        "second_stride": second.stride(0), "lines": len(first), "rows": first.shape[1],
        "columns": second.shape[1], "result": found.data_ptr(), "result_stride": found.stride(0),
    }  # fmt: skip
    table = array("q", [told[field] for field in windows.FIELDS])
    slots = {"windows": 1, "table": table.buffer_info()[0]}
    argument = array("q", [slots.get(slot, 0) for slot in windows.SLOTS])
    threads.run(windows.compiled(host(), "float"), argument.buffer_info()[0], 1)
    return found
