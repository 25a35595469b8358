"""Matrices' gradients that threads add up themselves: as those that are added up after the run, and the same again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from tidegate.cells import CELLS, Cell
from tidegate.compile import select
from tidegate.compile.llvm.host import host
from tidegate.compile.own_sums import MOST_BLOCKS, OWN_BYTES, OwnSums

pytestmark = pytest.mark.skipif(
    host().isa != "amx", reason="this machine has no matrix unit, or Linux does not lend it"
)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gradients(cell: Cell, x: Tensor, lengths: Tensor | None) -> list[Tensor]:
    torch.manual_seed(1)
    y, _ = select.unroll(cell, x, lengths=lengths, backend="llvm")
    return list(torch.autograd.grad(y, [x, *cell.parameters()], torch.randn_like(y)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "options"), [("gru_reset_before", {}), ("lstm", {"layer_norm": True}), ("mut1", {})])
def test_they_are_the_sums_of_all_lines(
    name: str, options: dict[str, bool], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(threads)
    # 95 rows are more than fit at a time for one thread, 140 are more blocks than threads.
    for (rows, steps), hidden, ragged in product([(32, 7), (95, 3), (140, 2)], [1, 17, 64], [False, True]):
        torch.manual_seed(0)
        cell = CELLS[name](5, hidden, **options)
        x = torch.randn(rows, steps, 5, requires_grad=True)
        lengths = torch.randint(0, steps + 1, (rows,)) if ragged else None
        own, again = gradients(cell, x, lengths), gradients(cell, x, lengths)
        with monkeypatch.context() as patched:
            patched.setattr(OwnSums, "fit", lambda *_: False)
            after = gradients(cell, x, lengths)
        for mine, same, theirs in zip(own, again, after, strict=True):
            assert torch.equal(mine, same)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6 * float(theirs.abs().max()))


def test_of_no_lines_they_are_zero() -> None:
    cell = CELLS["gru"](5, 8)
    x = torch.randn(64, 3, 5, requires_grad=True)
    for steps, lengths in ((0, None), (3, torch.zeros(64, dtype=torch.int64)), (3, torch.tensor([3, *[0] * 63]))):
        found = gradients(cell, x[:, :steps].detach().requires_grad_(), lengths)
        some = lengths is not None and bool(lengths.any())
        assert [bool(g.any()) for g in found[1:]] == [some] * (len(found) - 1)
        assert all(bool(g.isfinite().all()) for g in found)


def test_they_are_taken_where_they_stay_in_the_cache() -> None:
    def sums(hidden: int) -> OwnSums:
        cell = CELLS["lstm"](hidden, hidden)
        call = select.checked(cell, torch.randn(32, 2, hidden), None, None, None, {})
        found = select.compiled.traced_of(call)
        assert isinstance(found, tuple)
        return found[1]._own_sums

    # Of 128 units, two matrices [512, 128] of float32.
    assert sums(128).fit(2)
    assert OWN_BYTES == 2 * 512 * 128 * 4
    assert not sums(129).fit(2)
    assert not sums(64).fit(MOST_BLOCKS + 1)


@pytest.mark.parametrize("layout", ["by row", "by step", "neither", "one row for all"])
def test_inputs_are_read_as_they_lie(layout: str) -> None:
    torch.manual_seed(0)
    cell = CELLS["gru"](5, 17)
    plain = torch.randn(32, 7, 5)
    x = {
        "by row": plain,
        "by step": plain.transpose(0, 1).contiguous().transpose(0, 1),
        "neither": torch.randn(32, 7, 10)[:, :, 2:7],
        "one row for all": plain[:1].expand(32, 7, 5),
    }[layout]
    found, expected = (gradients(cell, each.detach().requires_grad_(), None) for each in (x, x.contiguous()))
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
