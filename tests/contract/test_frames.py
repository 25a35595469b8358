"""A14: every cell of the catalogue may be had over frames."""

from __future__ import annotations

import pytest
import torch

from tidegate.cells import CELLS, Convolutional
from tidegate.nn import Recurrent

from .cases import assert_close, beside

B, T, H = 2, 3, 3


@pytest.mark.parametrize("name", list(CELLS))
def test_any_cell_is_itself_where_there_is_one_place(name: str) -> None:
    torch.manual_seed(0)
    kind: type[Convolutional] = type(f"Conv{CELLS[name].__name__}", (Convolutional, CELLS[name]), {})
    cell, plain = kind(H, H, size=1, kernel_size=1, dtype=torch.float64), CELLS[name](H, H, dtype=torch.float64)
    shapes = {key: value.shape for key, value in plain.state_dict().items()}
    plain.load_state_dict({key: value.reshape(shapes[key]) for key, value in cell.state_dict().items()})
    x = torch.randn(B, T, H, dtype=torch.float64)
    y, state = Recurrent(cell)(x[..., None], **beside(plain, x))
    expected, after = Recurrent(plain, backend="reference")(x, **beside(plain, x))
    assert_close([v[..., 0] for v in (y, *cell.unpack(state))], [expected, *plain.unpack(after)], 1e-12)
    large = Recurrent(kind(H, H, size=(3, 2), dtype=torch.float64), layers=2)
    y, _ = large(x[..., None, None].expand(B, T, H, 3, 2), **beside(plain, x))
    assert y.shape == (B, T, large.output_size, 3, 2)
