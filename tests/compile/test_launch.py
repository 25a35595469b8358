"""Runs that are done as one like them was: on other tensors, from other threads, and where anything differs, anew."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tidegate.cells import CELLS
from tidegate.compile import memory
from tidegate.compile.launch import Live, Recording, Replay
from tidegate.nn import Recurrent

from .records import forget_records

ROWS, STEPS = 3, 7


def gradients(layer: Recurrent, x: Tensor, state: object = None, weighing: Tensor | None = None) -> list[Tensor]:
    leaf = x.detach().requires_grad_()
    y, after = layer(leaf, state)
    ends = after if isinstance(after, tuple) else (after,)
    weighing = torch.ones_like(y) if weighing is None else weighing
    found = torch.autograd.grad((y, *ends), [leaf, *layer.parameters()], (weighing, *map(torch.ones_like, ends)))
    return [y, *ends, *found]


def plain(layer: Recurrent) -> Recurrent:
    other = copy.deepcopy(layer)
    other.backend = "reference"
    return other


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Replay]:
    """What is recorded from now on."""
    forget_records()
    found: list[Replay] = []
    replay = Recording.replay

    def noting(self: Recording, *told: list[Tensor]) -> Replay:
        found.append(replay(self, *told))
        return found[-1]

    monkeypatch.setattr(Recording, "replay", noting)
    return found


@pytest.mark.parametrize("name", ["rnn", "gru_reset_before", "lstm", "gru_d", "mut1"])
def test_a_run_is_recorded_once_for_each_way_that_tensors_lie(name: str, recorded: list[Replay]) -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS[name](5, 8), backend="llvm")
    given = {each: torch.rand(ROWS, STEPS, 1 if each == "elapsed" else 5).round() for each in layer.cells[0].inputs}

    def results(layer: Recurrent, x: Tensor, weighing: Tensor) -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        y = layer(leaf, **given)[0]
        return [y, *torch.autograd.grad(y, [leaf, *layer.parameters()], weighing)]

    laid = {
        "by row": lambda x: x,
        "by step": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        "apart": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
        "one row for all": lambda x: x[:1].expand_as(x),
    }
    for x_lies in laid.values():
        for number, weighing_lies in enumerate(laid.values()):
            recorded.clear()
            for _ in range(3):
                x, weighing = x_lies(torch.randn(ROWS, STEPS, 5)), weighing_lies(torch.randn(ROWS, STEPS, 8))
                torch.testing.assert_close(results(layer, x, weighing), results(plain(layer), x, weighing))
            # Forward x alone counts.
            assert len(recorded) == (2 if number == 0 else 1)


def test_one_tensor_given_twice_is_two_another_time() -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS["lstm"](5, 8), backend="llvm")
    x, h, c = torch.randn(ROWS, STEPS, 5), torch.randn(1, ROWS, 8), torch.randn(1, ROWS, 8)
    for state in ((h, h), (h, c), (c, h), None, (c, c)):
        torch.testing.assert_close(gradients(layer, x, state), gradients(plain(layer), x, state))


def test_weights_are_read_where_they_are_and_as_they_lie() -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS["gru"](8, 8), backend="llvm")
    x = torch.randn(ROWS, STEPS, 8)
    cell = layer.cells[0]
    for change in (
        lambda: cell.weight_hh.data.mul_(0.5),
        lambda: setattr(cell.weight_hh, "data", torch.randn(24, 8)),
        lambda: setattr(cell.weight_hh, "data", torch.randn(8, 24).t()),
        lambda: setattr(cell.weight_ih, "data", torch.randn(24, 16)[:, :8]),
        lambda: setattr(cell.bias_hh, "data", torch.randn(48)[::2]),
    ):
        torch.testing.assert_close(gradients(layer, x), gradients(plain(layer), x))
        with torch.no_grad():
            change()
    torch.testing.assert_close(gradients(layer, x), gradients(plain(layer), x))


@pytest.mark.parametrize("rows", [ROWS, 64])
def test_threads_may_do_the_same_run_at_once(rows: int) -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS["lstm"](5, 16), backend="llvm")
    many = torch.randn(24, rows, STEPS, 5)
    expected = [gradients(layer, x) for x in many]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(lambda x: gradients(layer, x), many), expected, strict=True):
            torch.testing.assert_close(found, wanted)


def test_gradients_of_a_run_long_ago_are_its_own() -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS["gru"](5, 8), backend="llvm")
    xs = [torch.randn(ROWS, STEPS, 5, requires_grad=True) for _ in range(3)]
    outputs = [layer(x)[0] for x in xs]
    for x, y in reversed(list(zip(xs, outputs, strict=True))):
        (found,) = torch.autograd.grad(y.square().sum(), x)
        (expected,) = torch.autograd.grad(plain(layer)(x)[0].square().sum(), x)
        torch.testing.assert_close(found, expected)


def test_results_are_new_tensors_every_time() -> None:
    layer = Recurrent(CELLS["gru"](5, 8), backend="llvm")
    x = torch.randn(ROWS, STEPS, 5)
    first, second = gradients(layer, x), gradients(layer, x)
    places = [each.untyped_storage().data_ptr() for each in (*first, *second)]
    # A state and its copy beside it; gradients of vectors share one memory.
    assert not {p.data_ptr() for p in first} & {p.data_ptr() for p in second}
    assert len(set(places)) >= len(places) - 4


def test_memory_to_work_in_comes_back() -> None:
    with Live().scratch(5000) as scratch:
        place = scratch.data_ptr()
        assert place % memory.LINE == 0
    with Live().scratch(5000) as again:
        assert again.data_ptr() == place


def test_long_runs_work_in_no_more_memory_than_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    lent = most = 0
    borrowed, given_back = memory.borrowed, memory.given_back

    def lending(size: int) -> Tensor:
        nonlocal lent, most
        found = borrowed(size)
        lent += found.nbytes
        most = max(most, lent)
        return found

    def taking(found: Tensor) -> None:
        nonlocal lent
        lent -= found.nbytes
        given_back(found)

    monkeypatch.setattr(memory, "borrowed", lending)
    monkeypatch.setattr(memory, "given_back", taking)
    layer = Recurrent(CELLS["lstm"](16, 200), backend="llvm")
    peaks = []
    for steps in (300, 900):
        most = 0
        layer(torch.randn(16, steps, 16))[0].sum().backward()
        assert lent == 0
        peaks.append(most)
    assert 0 < peaks[1] <= peaks[0] * 1.01
