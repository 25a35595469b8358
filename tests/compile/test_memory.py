"""Memory that goes from run to run: it comes back when nobody holds it, never sooner, and not without end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tidegate.compile import memory

LARGE = memory.SMALL_BYTES // 4 + 1


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kept", memory._Kept())


def leased(numbers: int = LARGE, *, zero: bool = False) -> Tensor:
    return memory.leased(numbers, dtype=torch.float32, zero=zero)


def test_a_workspace_serves_the_next_run() -> None:
    with memory.workspace(4 * LARGE) as first:
        first.fill_(7)
    with memory.workspace(4 * LARGE) as second, memory.workspace(4 * LARGE) as third:
        assert second.data_ptr() == first.data_ptr()
        assert third.data_ptr() != first.data_ptr()
    with memory.lent(2, LARGE // 2, dtype=torch.float32, zero=True) as fourth:
        assert fourth.shape == (2, LARGE // 2)
        assert not fourth.any()


def test_leased_memory_comes_back_with_its_last_tensor() -> None:
    first = leased()
    place, part = first.data_ptr(), first[10:20]
    del first
    other = leased()
    assert other.data_ptr() != place
    del part
    again = leased(zero=True)
    assert again.data_ptr() == place
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


def test_memory_that_is_far_too_large_is_left_for_others() -> None:
    large = leased(memory.LOOSE * LARGE + 8)
    place = large.data_ptr()
    del large
    assert leased().data_ptr() != place
    assert leased(2 * LARGE).data_ptr() == place


def test_no_more_is_kept_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_BYTES", 10 * LARGE)
    pieces = [leased() for _ in range(4)]
    places = [piece.data_ptr() for piece in pieces]
    pieces.clear()
    held = memory._kept
    assert held.take(1 << 40) is None
    assert sum(piece.nbytes for piece in held._free) <= memory.MOST_BYTES
    assert leased().data_ptr() in places
    big = leased(3 * LARGE)
    del big
    assert held.take(12 * LARGE) is None


def test_memory_of_a_run_without_gradients_serves_one_with_them() -> None:
    with torch.inference_mode(), memory.workspace(4 * LARGE) as first:
        place = first.data_ptr()
    with memory.lent(LARGE, dtype=torch.float32, zero=True) as second:
        assert second.data_ptr() == place
        second.add_(1)
