"""Runs that write past the cache give what the others give, to the last bit, and write nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tidegate.cells import CELLS, Cell
from tidegate.compile import loop, native, select
from tidegate.compile.llvm.host import host
from tidegate.compile.loop import Loop
from tidegate.compile.operator import NATIVES

from .records import forget_records

FILL_LINES = ("avx512", "amx")
KNOWN = ("avx2", *FILL_LINES)
HERE = KNOWN[: KNOWN.index(host().isa) + 1] if host().isa in KNOWN else ()


def forward_loops() -> list[Loop]:
    return [each for kernels in NATIVES.values() for each in vars(kernels).values() if isinstance(each, Loop)]


def told_large() -> set[int]:
    """What the runs so far were told."""
    return {
        form.numbers[each.kernel.slots.index(("large",))]
        for each in forward_loops()
        if ("large",) in each.kernel.slots
        for form in each._forms.values()
    }


def forget_forms() -> None:
    forget_records()
    for each in forward_loops():
        each._forms.clear()


def trained(cell: Cell, x: Tensor, lengths: Tensor | None) -> list[Tensor]:
    torch.manual_seed(1)
    with torch.no_grad():
        alone, _ = select.unroll(cell, x, lengths=lengths, backend="llvm")
    y, state = select.unroll(cell, x, lengths=lengths, backend="llvm")
    gradients = torch.autograd.grad(y, [x, *cell.parameters()], torch.randn_like(y))
    return [alone, y.detach(), *(s.detach() for s in state), *gradients]


@pytest.mark.parametrize("isa", KNOWN)
@pytest.mark.parametrize("name", ["rnn", "gru_reset_before", "lstm_peephole", "mingru"])
@pytest.mark.parametrize("width", [1, 30, 64, 100])
def test_they_give_the_same(name: str, width: int, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if isa not in HERE:
        pytest.skip(f"this machine has no {isa}")
    monkeypatch.setenv("TIDEGATE_ISA", isa)
    monkeypatch.setattr(native, "_CORES", 2)
    torch.manual_seed(0)
    cell = CELLS[name](3, width)
    for rows, steps, ragged in [(1, 33, False), (5, 9, True), (17, 6, False), (32, 5, False), (32, 5, True)]:
        x = torch.randn(rows, steps, 3, requires_grad=True)
        lengths = torch.randint(0, steps + 1, (rows,)) if ragged else None
        found = []
        for large in (0, 1 << 60):
            monkeypatch.setattr(loop, "LARGE_BYTES", large)
            forget_forms()
            found.append(trained(copy.deepcopy(cell), x, lengths))
            assert told_large() == ({int(large == 0)} if isa in FILL_LINES else set())
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)


def test_large_runs_alone_write_past_the_cache() -> None:
    if host().isa not in FILL_LINES:
        pytest.skip("vectors here do not fill lines of memory")
    cell = CELLS["rnn"](3, 64)
    for rows, large in ((8, 0), (80, 1)):
        forget_forms()
        trained(cell, torch.randn(rows, 64, 3, requires_grad=True), None)
        assert told_large() == {large}
