"""Every backend runs every cell as the reference does, or refuses with its reason; padding changes nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tidegate.cells import Cell
from tidegate.compile.select import BACKENDS
from tidegate.errors import BackendError

from .cases import STOCK, VARIANTS, assert_close, call, gradients, random_state, some_lengths, states_of, unroll

# What is compiled of the catalogue beyond the stock cells is held against the reference in test_llvm too.
EVERY = [
    pytest.param(name, backend, marks=[pytest.mark.slow] if backend == "llvm" and not often else [])
    for name, backend in itertools.product(VARIANTS, BACKENDS)
    for often in (name.split()[0] in (*STOCK, "mine", "two_states", "direction"),)
]
NATIVE = {
    "rnn", "rnn bias=False", "rnn activation=relu", "rnn output_size=2",
    "lstm", "lstm bias=False", "lstm proj_size=2", "gru", "gru bias=False",
}  # fmt: skip
ROWS, STEPS = 5, 6

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")


def case(name: str, steps: int = STEPS) -> tuple[Cell, Tensor, object]:
    torch.manual_seed(5)
    cell = VARIANTS[name](3, 4)
    return cell, torch.randn(ROWS, steps, 3, requires_grad=True), random_state(cell, ROWS)


def test_torchs_kernels_take_exactly_the_cells_that_are_torchs() -> None:
    taken = {name for name, build in VARIANTS.items() if BACKENDS["aten"].refuses(call(*short(build))) is None}
    assert taken == NATIVE


def short(build) -> tuple[Cell, Tensor]:  # type: ignore[no-untyped-def]
    return build(3, 4), torch.randn(2, 3, 3)


@pytest.mark.parametrize(("name", "backend"), EVERY)
def test_equals_the_reference_or_refuses(name: str, backend: str) -> None:
    cell, x, state = case(name)
    every_third = (torch.arange(STEPS) % 3 == 1).repeat(ROWS, 1)
    full = torch.full((ROWS,), STEPS)
    for lengths, resets in itertools.product((None, some_lengths(ROWS, STEPS), full), (None, every_third)):
        reason = BACKENDS[backend].refuses(call(cell, x, lengths, resets))
        if reason is not None:
            with pytest.raises(BackendError) as raised:
                unroll(cell, x, state, lengths, resets, backend=backend)
            assert reason() in str(raised.value)
            assert "reference" in raised.value.hint
            continue
        results = []
        for run in (backend, "reference"):
            y, end = unroll(cell, x, state, lengths, resets, backend=run)
            everything = [y, *states_of(cell, end)]
            leaves = [x, *states_of(cell, state), *cell.parameters()]
            results.append([*everything, *gradients(everything, leaves)])
        assert_close(results[0], results[1], 1e-5)


@pytest.mark.parametrize(("name", "backend"), EVERY)
def test_what_padding_holds_changes_nothing_to_the_bit(name: str, backend: str) -> None:
    cell, x, state = case(name)
    if BACKENDS[backend].refuses(call(cell, x)):
        with pytest.raises(BackendError):
            unroll(cell, x, state, backend=backend)
        return
    lengths = some_lengths(ROWS, STEPS)
    padding = torch.arange(STEPS) >= lengths[:, None]
    seen = []
    for content in (0.0, 7.5, float("nan"), float("inf")):
        filled = x.detach().masked_fill(padding[..., None], content).requires_grad_()
        y, end = unroll(cell, filled, state, lengths, backend=backend)
        results = [y, *states_of(cell, end)]
        seen.append([*results, *gradients(results, [filled, *states_of(cell, state), *cell.parameters()])])
        assert not y[padding].any()
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize(("name", "backend"), EVERY)
def test_how_long_padding_is_changes_nothing_beyond_rounding(name: str, backend: str) -> None:
    cell, x, state = case(name)
    if BACKENDS[backend].refuses(call(cell, x)):
        with pytest.raises(BackendError):
            unroll(cell, x, state, backend=backend)
        return
    lengths = some_lengths(ROWS, STEPS)
    seen = []
    for extra in (0, 1, 9):
        longer = torch.nn.functional.pad(x, (0, 0, 0, extra))
        y, end = unroll(cell, longer, state, lengths, backend=backend)
        assert not y[:, STEPS:].any()
        results = [y[:, :STEPS], *states_of(cell, end)]
        seen.append([*results, *gradients(results, [x, *states_of(cell, state), *cell.parameters()])])
    assert_close(seen[1], seen[0], 1e-6)
    assert_close(seen[2], seen[0], 1e-6)


@pytest.mark.parametrize(("name", "backend"), EVERY)
def test_split_and_carry_equals_whole(name: str, backend: str) -> None:
    cell, x, state = case(name)
    if BACKENDS[backend].refuses(call(cell, x)):
        with pytest.raises(BackendError):
            unroll(cell, x, state, backend=backend)
        return
    lengths = some_lengths(ROWS, STEPS)
    whole, end = unroll(cell, x, state, lengths, backend=backend)
    for cut in (1, 3, 5):
        y1, middle = unroll(cell, x[:, :cut], state, lengths.clamp(max=cut), backend=backend)
        y2, last = unroll(cell, x[:, cut:], middle, (lengths - cut).clamp(min=0), backend=backend)
        assert_close([torch.cat([y1, y2], 1), *states_of(cell, last)], [whole, *states_of(cell, end)], 1e-5)
