"""The compiled function that takes a step: what it refuses, and that nothing is held or lost by it."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tidegate import nn as tnn
from tidegate.cells import GRU, LSTM
from tidegate.compile.llvm import one_step
from tidegate.compile.llvm.engine import verify
from tidegate.compile.llvm.host import target
from tidegate.compile.stepping import Taker
from tidegate.nn import Recurrent
from tidegate.nn.norms import NORMS

ROWS, WIDTH = 2, 8


def taker(layer: nn.Module, *overwritten: Tensor) -> tuple[Taker, Any]:
    stepper = layer._compiled_steps(ROWS)
    assert stepper is not None
    return Taker(stepper, overwritten), layer.cells._modules


def step(*arguments: Any) -> Callable[[Taker, Any], Any]:
    return lambda ready, cells: ready.take(cells, *arguments)


X, STATE = torch.zeros(ROWS, WIDTH), torch.zeros(2, ROWS, WIDTH)
WRONG_X = {
    "another shape": torch.zeros(ROWS, WIDTH + 1),
    "a row more": torch.zeros(ROWS + 1, WIDTH),
    "another dtype": X.double(),
    "not dense": torch.zeros(WIDTH, ROWS).t(),
    "negated when read": torch._neg_view(X),
    "on another device": X.to("meta"),
    "a parameter": nn.Parameter(X),
    "a list": [[0.0] * WIDTH] * ROWS,
    "nothing": None,
}


@pytest.mark.parametrize("isa", ["amx", "avx512", "avx2", "neon", "generic"])
def test_the_function_is_valid_everywhere(isa: str) -> None:
    verify(str(one_step._module(target(isa))), target(isa))


@torch.no_grad()
@pytest.mark.parametrize("wrong", WRONG_X.values(), ids=WRONG_X)
def test_what_is_not_as_prepared_is_refused_without_a_trace(wrong: Any) -> None:
    ready, cells = taker(Recurrent(GRU(WIDTH, WIDTH), layers=2))
    state = torch.zeros(2, ROWS, WIDTH)
    overwriting, others = taker(Recurrent(GRU(WIDTH, WIDTH), layers=2), state)
    assert ready.take(cells, X, STATE) is not None
    held = sys.getrefcount(wrong), sys.getrefcount(cells)
    for _ in range(10):
        assert ready.take(cells, wrong, STATE) is None
        assert overwriting.take(others, wrong) is None
        if isinstance(wrong, Tensor):
            assert ready.take(cells, X, wrong) is None
    # Of None, others may take some meanwhile.
    assert sys.getrefcount(cells) == held[1]
    assert abs(sys.getrefcount(wrong) - held[0]) < 10
    assert not state.any()
    assert ready.take(cells, X, STATE) is not None


@torch.no_grad()
@pytest.mark.parametrize(
    "call",
    [step(), step(X), step(X, STATE, STATE), lambda ready, cells: ready.take(), lambda ready, cells: ready.take([], X)],
    ids=["no x", "no state", "a state too many", "nothing", "no cells"],
)
def test_another_number_of_arguments_is_refused(call: Callable[[Taker, Any], Any]) -> None:
    assert call(*taker(Recurrent(GRU(WIDTH, WIDTH), layers=2))) is None


@torch.no_grad()
def test_results_are_the_callers_alone() -> None:
    layer = Recurrent(LSTM(WIDTH, WIDTH), layers=2)
    ready, cells = taker(layer)
    state = torch.randn(2, ROWS, WIDTH), torch.randn(2, ROWS, WIDTH)
    shared = [X, *state, X.dtype, X.shape, cells, layer.cells[0].weight_ih, None, True]
    before = [sys.getrefcount(each) for each in shared]
    for _ in range(1000):
        ready.take(cells, X, *state)
    after = [sys.getrefcount(each) for each in shared]
    # Of constants, others may take some meanwhile.
    assert all(abs(now - then) < 100 for now, then in zip(after, before, strict=True))
    done = ready.take(cells, X, *state)
    assert [sys.getrefcount(each) for each in done] == [3] * 3  # the tuple's, the loop's, the argument's
    gone = [weakref.ref(each) for each in done]
    del done
    assert [each() for each in gone] == [None] * 3


@torch.no_grad()
def test_a_function_that_torch_no_longer_has_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def like(tensor: Tensor) -> Tensor:
        calls.append(tensor.shape)
        return tensor.clone()

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", like)
        ready, cells = taker(Recurrent(GRU(WIDTH, WIDTH)))
    del like, patched
    gc.collect()
    assert ready.take(cells, X, STATE[:1]) is not None
    assert len(calls) == 2


@torch.no_grad()
def test_an_error_while_memory_is_asked_for_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[Tensor]] = []

    def like(tensor: Tensor) -> Tensor:
        if len(made) == 2:
            raise MemoryError
        new = tensor.clone()
        made.append(weakref.ref(new))
        return new

    monkeypatch.setattr(torch, "empty_like", like)
    ready, cells = taker(Recurrent(LSTM(WIDTH, WIDTH)))
    assert ready.take(cells, X, STATE[:1], STATE[:1]) is None
    assert [each() for each in made] == [None, None]


@torch.no_grad()
def test_a_parameter_more_of_the_layer_that_lends_them_is_seen() -> None:
    layer = tnn.GRU(WIDTH, WIDTH, bias=False, batch_first=True)
    x, state = torch.randn(ROWS, WIDTH), torch.randn(1, ROWS, WIDTH)
    ready, cells = taker(layer)
    assert ready.take(cells, x, state) is not None
    layer.register_parameter("another", nn.Parameter(torch.ones(1)))
    assert ready.take(cells, x, state) is None
    torch.testing.assert_close(layer.step(x, state)[0], layer(x[:, None], state)[0][:, 0])


@torch.no_grad()
def test_others_may_look_at_whatever_is_there_meanwhile() -> None:
    layer, done = Recurrent(LSTM(WIDTH, WIDTH), layers=2), Event()
    x = torch.randn(ROWS, WIDTH)
    # Compiled before: Python's own `tuple(each for each in …)` does not stand being looked at.
    layer.step(x)

    def look() -> None:
        while not done.is_set():
            gc.get_objects()
            time.sleep(0)

    looking = Thread(target=look)
    looking.start()
    try:
        until, state = time.monotonic() + 3, None
        while time.monotonic() < until:
            y, state = layer.step(x, state)
            assert y.shape == (ROWS, WIDTH)
            assert all(type(s) is Tensor for s in state)
    finally:
        done.set()
        looking.join()


@torch.no_grad()
def test_an_interrupt_is_raised_and_an_error_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[BaseException] = []

    def like(tensor: Tensor) -> Tensor:
        if raised:
            raise raised[0]
        return tensor.clone()

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", like)
        ready, cells = taker(Recurrent(LSTM(WIDTH, WIDTH)))
    raised.append(ValueError())
    assert ready.take(cells, X, STATE[:1], STATE[:1]) is None
    raised[0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        ready.take(cells, X, STATE[:1], STATE[:1])
    raised.clear()
    assert ready.take(cells, X, STATE[:1], STATE[:1]) is not None


@torch.no_grad()
def test_weights_cut_or_taken_away_are_not_read() -> None:
    x = torch.randn(ROWS, WIDTH)

    def cut(weight: nn.Parameter) -> None:
        weight.data = weight.data[: WIDTH // 2]

    def empty(weight: nn.Parameter) -> None:
        weight.untyped_storage().resize_(0)

    for change in (cut, empty):
        layer = Recurrent(GRU(WIDTH, WIDTH))
        stream = layer.stream(ROWS)
        ready, cells = taker(layer)
        assert ready.take(cells, x, STATE[:1]) is not None
        change(layer.cells[0].weight_hh)
        assert ready.take(cells, x, STATE[:1]) is None
        assert not ready.follows(cells)
        assert stream._taker.take(cells, x) is None


@torch.no_grad()
def test_a_stream_sees_what_becomes_of_its_layer() -> None:
    torch.manual_seed(0)
    layer = Recurrent(GRU(WIDTH, WIDTH), layers=2)
    x, stream = torch.randn(ROWS, WIDTH), layer.stream(ROWS)

    def normalise() -> None:
        layer.norms = nn.ModuleList(NORMS["layer"](WIDTH) for _ in range(2))

    for change in (
        lambda: setattr(layer, "backend", "reference"), lambda: setattr(layer, "backend", "auto"),
        lambda: setattr(layer, "dropout", 1.0), layer.eval, layer.train, lambda: setattr(layer, "dropout", 0.0),
        normalise, lambda: setattr(layer, "norms", None),
    ):  # fmt: skip
        stream(x)
        stream.reset()
        before = stream._taker
        change()
        torch.testing.assert_close(stream(x), layer(x[:, None])[0][:, 0])
        assert (stream._taker is None) == (not layer._steps_compile())
        assert stream._taker is not before
        stream.reset()
