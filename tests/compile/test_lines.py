"""Sums over rows and steps: each way against NumPy, and each way for the same cell."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch

from tidegate.cells import CELLS
from tidegate.compile import lines, native
from tidegate.compile.llvm.amx import EXACT
from tidegate.compile.llvm.host import host, target
from tidegate.compile.own_sums import OwnSums
from tidegate.nn import Recurrent

from .records import forget_records


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("isa", "cores", "rows", "takes"),
    [
        ("amx", 2, 23, True), ("amx", 2, 22, False), ("amx", 2, 32, True), ("amx", 2, 33, False), ("amx", 2, 47, True),
        ("amx", 64, 64, False), ("amx", 64, 12 * 64, True), ("avx512", 2, 32, False),
    ],
)  # fmt: skip
def test_the_matrix_unit_multiplies_where_its_tiles_are_filled(
    isa: str, cores: int, rows: int, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "_CORES", cores)
    assert native.by_tiles(target(isa), torch.float32, rows) == takes
    assert not native.by_tiles(target(isa), torch.float64, rows)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (97, 33, 65), (300, 17, 600), (500, 300, 40), (1000, 16, 32)]
)
def test_the_matrix_unit_sums_lines(count: int, rows: int, columns: int, threads: int) -> None:
    if host().isa != "amx":
        pytest.skip("this machine has no matrix unit, or Linux does not lend it")
    torch.set_num_threads(threads)
    first, second = torch.randn(count, rows + 3)[:, :rows], torch.randn(count, columns + 1)[:, 1:]
    exact = first.double().t() @ second.double()
    size = first.abs().double().t() @ second.abs().double()
    found = lines._by_tiles(first, second, None, host(), EXACT)
    assert found.shape == exact.shape
    assert ((found - exact).abs() <= (count + 4) * 2**-24 * size).all()
    around = torch.full((rows + 2, columns + 3), 7.0)
    window = around[1:-1, 1:-2]
    assert lines._by_tiles(first, second, window, host(), EXACT) is window
    assert torch.equal(window, found)
    window.fill_(7)
    assert (around == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["rnn", "gru", "gru_reset_before", "lstm", "mgu", "scrn", "lru"])
def test_one_call_for_all_matrices_sums_what_one_for_each_does(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    cell = CELLS[name](5, 12, dtype=dtype)
    x = torch.randn(3, 7, 5, dtype=dtype)
    layer = Recurrent(cell, backend="llvm")

    def gradients() -> list[torch.Tensor]:
        return list(torch.autograd.grad(layer(x)[0].square().sum(), list(cell.parameters())))

    torch.set_num_threads(2)
    at_once = gradients()
    monkeypatch.setattr(lines, "ALONE", 0)
    forget_records()
    shared = gradients()
    monkeypatch.setattr(lines, "FEW", 0)
    forget_records()
    one_by_one = gradients()
    for a, b, c in zip(at_once, shared, one_by_one, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


def test_which_way_is_taken_follows_from_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(OwnSums, "fit", lambda *_: False)
    monkeypatch.setattr(lines, "sum_lines", lambda p, q, out, *_: taken.append(tuple(p.shape)) or out.zero_())
    layer = Recurrent(CELLS["lstm"](8, 16), backend="llvm")
    for batch, steps in product((1, 4), (2, lines.FEW_LINES // 4 + 1)):
        taken.clear()
        layer(torch.randn(batch, steps, 8))[0].sum().backward()
        assert bool(taken) == (batch * steps > lines.FEW_LINES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("rows", "steps", "stretch"), [(3, 17, 1), (3, 17, 5), (33, 9, 4), (1, 2, 1)])
@pytest.mark.parametrize("name", ["rnn", "gru_reset_before", "lstm_peephole", "lstm"])
def test_a_run_in_stretches_has_the_gradients_of_the_whole(
    name: str, rows: int, steps: int, stretch: int, ragged: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    cell = CELLS[name](5, 12, dtype=dtype, **({"layer_norm": True} if name == "lstm" else {}))
    layer = Recurrent(cell, backend="llvm")
    x = torch.randn(rows, steps, 5, dtype=dtype, requires_grad=True)
    states = [torch.randn(1, rows, 12, dtype=dtype, requires_grad=True) for _ in cell.states]
    state = tuple(states) if len(states) > 1 else states[0]
    told = {}
    if ragged:
        lengths = torch.randint(0, steps + 1, (rows,))
        lengths[0] = steps
        told = {"lengths": lengths, "resets": torch.rand(rows, steps) < 0.2}
    weighing = torch.randn(rows, steps, 12, dtype=dtype)

    def gradients() -> list[torch.Tensor]:
        y, after = layer(x, state, **told)
        total = (y * weighing).sum() + sum(s.square().sum() for s in (after if isinstance(after, tuple) else [after]))
        return list(torch.autograd.grad(total, [x, *states, *cell.parameters()], allow_unused=True))

    whole = gradients()
    asked = []
    monkeypatch.setattr(lines.MatrixGradients, "stretch", lambda *_: asked.append(1) or stretch)
    forget_records()
    parts = gradients()
    assert asked
    for number, (a, b) in enumerate(zip(whole, parts, strict=True)):
        if number <= len(states):
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a, b, rtol=2e-5 if dtype == torch.float32 else 1e-11, atol=2e-6)


def test_stretches_keep_what_their_matrices_need_near_and_short_runs_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(OwnSums, "fit", lambda *_: False)
    real = lines.MatrixGradients.sum
    monkeypatch.setattr(lines.MatrixGradients, "sum", lambda self, *given: ran.append(given[3]) or real(self, *given))
    layer = Recurrent(CELLS["gru"](4, 16), backend="llvm")
    for steps, parts in ((100, 1), (20_000, 3)):
        ran.clear()
        forget_records()
        layer(torch.randn(1, steps, 4))[0].sum().backward()
        assert len(ran) == parts
        assert sum(part.steps for part in ran) == steps
        assert max(part.steps for part in ran) - min(part.steps for part in ran) <= 1
