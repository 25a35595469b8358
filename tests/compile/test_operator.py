"""Compiled kernels as torch operators: shapes known without running, and no second derivative."""

from __future__ import annotations

import pytest
import torch

from tidegate.cells import LSTM
from tidegate.compile import operator
from tidegate.compile.select import unroll
from tidegate.errors import BackendError


def test_second_derivative_names_the_backend_that_has_it() -> None:
    cell, x = LSTM(4, 3), torch.randn(2, 3, 4, requires_grad=True)
    y, _ = unroll(cell, x, backend="llvm")
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="backend='reference'"):
        torch.autograd.grad(g.square().sum(), x)


def test_fake_tensors_have_the_shapes_of_real_ones() -> None:
    cell, x = LSTM(4, 3), torch.randn(2, 5, 4)
    unroll(cell, x, backend="llvm")
    key = list(operator.NATIVES)[-1]
    arguments = (key, [x.transpose(0, 1).contiguous()], [], [torch.zeros(2, 3), torch.zeros(2, 3)], [],
                 [cell.bias_ih.detach(), cell.bias_hh.detach()], [cell.weight_ih.detach(), cell.weight_hh.detach()],
                 None, None)  # fmt: skip
    for save in (False, True):
        torch.library.opcheck(
            torch.ops.tidegate.unroll.default, (*arguments, save),
            test_utils=("test_schema", "test_faketensor"),
        )  # fmt: skip
