"""Whoever changes what mode modules are in leaves each in its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from tidegate import nn as tnn
from tidegate.cells import GRU
from tidegate.modes import modes_kept, modes_of


def frozen(module: nn.Module) -> nn.Module:
    """In training, but for the last module it holds."""
    module.train()
    list(module.modules())[-1].eval()
    return module


def breaking(module: nn.Module) -> None:
    module.eval()
    raise ArithmeticError


def test_modes_come_back_whatever_happens_inside() -> None:
    module = frozen(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2))))
    before = modes_of(module)
    with pytest.raises(ArithmeticError), modes_kept(module):
        breaking(module)
    assert modes_of(module) == before
    assert len({training for _, training in before}) == 2


def decoder() -> tnn.Decoder:
    return tnn.Decoder(tnn.Recurrent(GRU(4, 4), norm="layer"), tokens=5)


def seq2seq() -> tnn.Seq2Seq:
    return tnn.Seq2Seq(tnn.Recurrent(GRU(3, 4)), decoder(), begin=0, end=1)


USES: dict[str, tuple[Callable[[], nn.Module], Callable[[Any], object]]] = {
    "write": (decoder, lambda m: tnn.write(m, torch.zeros(2, dtype=torch.long), steps=3)),
    "search": (decoder, lambda m: tnn.beam_search(m, torch.zeros(2, dtype=torch.long), width=2, steps=3, end=1)),
    "translate": (seq2seq, lambda m: m.write(torch.randn(2, 4, 3), steps=3)),
    "translate by a beam": (seq2seq, lambda m: m.search(torch.randn(2, 4, 3), steps=3, width=2)),
}


@pytest.mark.parametrize("use", USES)
def test_writing_leaves_every_module_in_its_own_mode(use: str) -> None:
    build, run = USES[use]
    module = frozen(build())
    before = modes_of(module)
    run(module)
    assert modes_of(module) == before


def test_a_segment_is_run_again_as_it_was_the_first_time_and_leaves_no_trace() -> None:
    layer = tnn.Recurrent(GRU(3, 4, zoneout=0.5), recompute=True, backend="reference").train()
    x = torch.randn(2, 30, 3)
    output, _ = layer(x)
    layer.eval()
    output.sum().backward()
    assert not any(training for _, training in modes_of(layer))
