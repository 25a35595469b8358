"""Memory that goes from run to run: it comes back when nobody holds it, never sooner, and not without end."""

from __future__ import annotations

from threading import Thread

import pytest
import torch
from torch import Tensor

import tidegate
from tidegate.compile import memory

LARGE = memory.SMALL_BYTES // 4 + 1


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", {})


def leased(numbers: int = LARGE, *, zero: bool = False) -> Tensor:
    return memory.leased(numbers, dtype=torch.float32, zero=zero)


def kept() -> int:
    return sum(size * len(pieces) for size, pieces in memory._free.items())


def test_memory_comes_back_with_its_last_tensor() -> None:
    first = leased()
    place, part = first.data_ptr(), first[10:20]
    first.fill_(7)
    del first
    other = leased()
    assert other.data_ptr() != place
    del part
    again = memory.leased(1, LARGE, dtype=torch.float32, zero=True)
    assert again.data_ptr() == place
    assert again.shape == (1, LARGE)
    assert not again.any()


def test_a_gradient_that_is_still_to_be_asked_for_holds_its_memory() -> None:
    held = leased(zero=True)

    class Holding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, saved: Tensor) -> Tensor:
            ctx.save_for_backward(saved)  # type: ignore[attr-defined]
            return x.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
            (saved,) = ctx.saved_tensors  # type: ignore[attr-defined]
            return gradient + saved[:3], None

    x = torch.zeros(3, requires_grad=True)
    y = Holding.apply(x, held)
    place = held.data_ptr()
    del held
    other = leased()
    assert other.data_ptr() != place
    other.fill_(9)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(3))
    del y
    assert leased().data_ptr() == place


def test_what_a_layer_gave_out_is_its_users_for_as_long_as_they_hold_any_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL_BYTES", 1 << 10)
    layer = tidegate.nn.GRU(3, 20, backend="llvm")
    x = torch.randn(5, 40, 3)

    def outputs() -> Tensor:
        return layer(x)[0]

    wanted = outputs().detach().clone()
    first, last, array = outputs(), outputs()[:, -1], outputs().detach().numpy()
    gradient = torch.autograd.grad(layer(x.requires_grad_())[0].sum(), x)[0]
    kept = gradient.clone()
    with torch.no_grad():
        next(layer.parameters()).add_(1)
    for _ in range(5):
        other = outputs()
        torch.autograd.grad(other.sum(), x)
    assert torch.equal(first, wanted)
    assert torch.equal(last, wanted[:, -1])
    assert torch.equal(torch.from_numpy(array), wanted)
    assert torch.equal(gradient, kept)
    place = other.data_ptr()
    del other
    assert place in {outputs().data_ptr() for _ in range(2)}


def test_sizes_that_differ_little_share_memory() -> None:
    large = leased(8 * LARGE)
    place = large.data_ptr()
    del large
    assert leased().data_ptr() != place
    assert leased(8 * LARGE + 5).data_ptr() == place
    for size in (1, 7, 8, 9, 1000, 1 << 20, (1 << 20) + 1):
        assert size <= memory._rounded(size) <= size * 1.25


def test_no_more_is_kept_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_BYTES", 10 * 4 * LARGE)
    pieces = [leased(3 * LARGE) for _ in range(5)]
    pieces.clear()
    assert 0 < kept() <= memory.MOST_BYTES
    # What was last in use stays.
    small = leased()
    place = small.data_ptr()
    del small
    assert kept() <= memory.MOST_BYTES
    assert leased().data_ptr() == place
    big = leased(11 * LARGE)
    del big
    assert kept() <= memory.MOST_BYTES


def test_memory_of_a_run_without_gradients_serves_one_with_them() -> None:
    with torch.inference_mode():
        first = leased()
        place = first.data_ptr()
        del first
    second = leased(zero=True)
    assert second.data_ptr() == place
    second.add_(1)


def test_threads_never_share_memory() -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(200):
            mine = leased(LARGE + turn % 3)
            mine.fill_(number)
            if not bool((mine == number).all()):
                wrong.append(number)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    # Each has the next before it lets go of the last.
    assert kept() <= 8 * memory._rounded(4 * LARGE + 8)


@pytest.mark.parametrize("size", [0, 1, 1000, memory.SMALL_BYTES - 1, memory.SMALL_BYTES, memory.SMALL_BYTES + 1])
def test_what_was_borrowed_and_given_back_serves_the_next(size: int) -> None:
    first, second = memory.borrowed(size), memory.borrowed(size)
    assert min(first.nbytes, second.nbytes) >= size
    assert first.data_ptr() != second.data_ptr()
    place = first.data_ptr()
    memory.given_back(first)
    assert memory.borrowed(size).data_ptr() == place
