"""Matrices' gradients that threads add up themselves: as those that are added up after the run, and the same again."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tidegate.cells import CELLS, Cell
from tidegate.compile import lines, native, select
from tidegate.compile.launch import Live
from tidegate.compile.llvm.host import host
from tidegate.compile.loop import Buffers
from tidegate.compile.own_sums import MOST_BYTES, OWN_BYTES, OwnSums

from .records import forget_records

HERE = host().isa
UNITS = {
    "tiles": pytest.mark.skipif(HERE != "amx", reason="this machine has no matrix unit, or Linux does not lend it"),
    "avx512": pytest.mark.skipif(HERE not in ("amx", "avx512"), reason="this machine has no AVX-512"),
    "avx2": pytest.mark.skipif(HERE not in ("amx", "avx512", "avx2"), reason="this machine has no AVX2"),
}
UNIT = pytest.mark.parametrize("unit", [pytest.param(name, marks=mark) for name, mark in UNITS.items()], indirect=True)


@pytest.fixture
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What adds them up: the matrix unit, or vectors, also where lines are few."""
    name = str(request.param)
    if name != "tiles":
        monkeypatch.setenv("TIDEGATE_ISA", name)
        monkeypatch.setattr(lines, "FEW_LINES", 0)
    return name


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def gradients(cell: Cell, x: Tensor, lengths: Tensor | None) -> list[Tensor]:
    torch.manual_seed(1)
    y, _ = select.unroll(cell, x, lengths=lengths, backend="llvm")
    return list(torch.autograd.grad(y, [x, *cell.parameters()], torch.randn_like(y)))


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of a machine of two cores, how many rows each run has whose threads add up their own."""
    monkeypatch.setattr(native, "_CORES", 2)
    rows: list[int] = []
    begin = OwnSums.begin

    def noted(self: OwnSums, run: Live, room: Any, buffers: Buffers, saved: Tensor, steps: int, *told: int) -> Any:
        rows.append(told[0])
        return begin(self, run, room, buffers, saved, steps, *told)

    monkeypatch.setattr(OwnSums, "begin", noted)
    return rows


@UNIT
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("name", "options"), [("gru_reset_before", {}), ("lstm", {"layer_norm": True}), ("mut1", {})])
def test_they_are_the_sums_of_all_lines(
    name: str, options: dict[str, bool], threads: int, unit: str, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(threads)
    # One thread adds 96 lines at a time, and has 64 rows at most: 64 are added step by step, 95 are two blocks of which
    # two steps fit, 128 two full ones, 193 more blocks than threads.
    sizes = [(32, 7), (63, 3), (64, 3), (95, 5), (97, 3), (128, 2), (193, 3)]
    if unit != "tiles":
        sizes += [(1, 200), (5, 41)]
    widths = (17, 64) if name == "lstm" else (1, 33)
    for number, ((rows, steps), ragged) in enumerate(product(sizes, [False, True])):
        hidden = widths[number % 2]
        torch.manual_seed(0)
        cell = CELLS[name](5, hidden, **options)
        x = torch.randn(rows, steps, 5, requires_grad=True)
        lengths = torch.randint(0, steps + 1, (rows,)) if ragged else None
        runs.clear()
        forget_records()
        own, again = gradients(cell, x, lengths), gradients(cell, x, lengths)
        # A full batch is recorded, and done again as it was.
        noted = [rows, rows] if ragged else [rows]
        assert runs == noted
        with monkeypatch.context() as patched:
            patched.setattr(OwnSums, "fit", lambda *_: False)
            forget_records()
            after = gradients(cell, x, lengths)
        assert runs == noted
        for mine, same, theirs in zip(own, again, after, strict=True):
            assert torch.equal(mine, same)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6 * float(theirs.abs().max()))


@UNIT
def test_of_no_lines_they_are_zero(unit: str, runs: list[int]) -> None:
    forget_records()
    cell = CELLS["gru"](5, 8)
    x = torch.randn(64, 3, 5, requires_grad=True)
    for steps, lengths in ((0, None), (3, torch.zeros(64, dtype=torch.int64)), (3, torch.tensor([3, *[0] * 63]))):
        found = gradients(cell, x[:, :steps].detach().requires_grad_(), lengths)
        some = lengths is not None and bool(lengths.any())
        assert [bool(g.any()) for g in found[1:]] == [some] * (len(found) - 1)
        assert all(bool(g.isfinite().all()) for g in found)
    # Of no steps, there is nothing to launch.
    assert runs == [64] * (3 if unit == "tiles" else 2)


def test_they_are_taken_where_they_stay_in_the_cache() -> None:
    def sums(hidden: int) -> list[OwnSums]:
        cell = CELLS["lstm"](hidden, hidden)
        call = select.checked(cell, torch.randn(32, 2, hidden), None, None, None, {})
        found = select.compiled.traced_of(call)
        assert isinstance(found, tuple)
        return [found[1]._own_sums, *([found[1]._own_sums_by_tiles] if HERE == "amx" else [])]

    # Of 128 units, two matrices [512, 128] of float32.
    assert OWN_BYTES == 2 * 512 * 128 * 4
    for fitting, larger in zip(sums(128), sums(129), strict=True):
        assert fitting.fit(2)
        assert not larger.fit(2)
        assert fitting.fit(MOST_BYTES // OWN_BYTES)
        assert not fitting.fit(MOST_BYTES // OWN_BYTES + 1)


@UNIT
@pytest.mark.parametrize("layout", ["by row", "by step", "neither", "one row for all"])
def test_inputs_are_read_as_they_lie(layout: str, unit: str, runs: list[int]) -> None:
    torch.manual_seed(0)
    forget_records()
    cell = CELLS["gru"](5, 17)
    plain = torch.randn(32, 7, 5)
    x = {
        "by row": plain,
        "by step": plain.transpose(0, 1).contiguous().transpose(0, 1),
        "neither": torch.randn(32, 7, 10)[:, :, 2:7],
        "one row for all": plain[:1].expand(32, 7, 5),
    }[layout]
    found, expected = (gradients(cell, each.detach().requires_grad_(), None) for each in (x, x.contiguous()))
    # What lies by row is done again as it was recorded.
    assert runs == ([32] if layout == "by row" else [32, 32])
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.equal(mine, theirs)
