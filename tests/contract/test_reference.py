"""The reference loop is right for every cell: derivatives, carried states, lengths, padding and resets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tidegate.cells import CELLS

from . import cases
from .cases import CUT, STOCK, VARIANTS, Build, assert_close, beside, gradients, random_state, states_of


def unroll(*arguments: object):  # type: ignore[no-untyped-def]
    return cases.unroll(*arguments, backend="reference")  # type: ignore[arg-type]


EVERY = pytest.mark.parametrize("name", VARIANTS)
# A missing bias is a path of the base, not of each cell: the stock ones show that its derivatives are right.
SMOOTH = pytest.mark.parametrize(
    "name", [n for n in VARIANTS if n not in CUT and ("bias=False" not in n or n.split()[0] in STOCK)]
)


def flat(name: str, hidden: int, steps: int, lengths: Tensor | None, resets: Tensor | None):
    """The reference as a function of (x, states, weights) alone, and a point to take derivatives at."""
    torch.manual_seed(3)
    cell = VARIANTS[name](2, hidden, dtype=torch.float64)
    x = torch.randn(2, steps, 2, dtype=torch.float64, requires_grad=True)
    states = states_of(cell, random_state(cell, 2))
    names, weights = zip(*cell.named_parameters(), strict=True)

    def run(x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        state = cell.pack(rest[: len(states)])
        replaced = dict(zip(names, rest[len(states) :], strict=True))
        y, after = torch.func.functional_call(Unrolled(cell), {f"cell.{k}": v for k, v in replaced.items()},
                                              (x, state, lengths, resets))  # fmt: skip
        return y, *states_of(cell, after)

    return run, (x, *states, *weights)


def quick(name: str) -> bool:
    """Whether one random direction of derivatives is tried, not each entry of the Jacobian."""
    return name.split()[0] in CELLS and name.split()[0] not in STOCK


class Unrolled(torch.nn.Module):
    def __init__(self, cell: torch.nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, *arguments):  # type: ignore[no-untyped-def]
        return unroll(self.cell, *arguments)


@SMOOTH
def test_first_derivative(name: str) -> None:
    resets = torch.tensor([[False, True, False], [False, False, False]])
    every = ((torch.tensor([3, 2]), resets), (torch.tensor([3, 1]), None), (None, None))
    for options in every[:1] if quick(name) else every:
        run, point = flat(name, 3, 3, *options)
        assert torch.autograd.gradcheck(run, point, fast_mode=quick(name))


@SMOOTH
def test_second_derivative(name: str) -> None:
    run, point = flat(name, 3 if "proj" in name else 2, 2, torch.tensor([2, 1]), None)
    assert torch.autograd.gradgradcheck(run, point, atol=1e-4, fast_mode=quick(name))


@EVERY
@given(data=st.data())
@settings(max_examples=8, deadline=None, derandomize=True)
def test_split_and_carry_equals_whole(name: str, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 6))
    cut = data.draw(st.integers(0, steps))
    lengths = data.draw(st.none() | st.lists(st.integers(0, steps), min_size=3, max_size=3).map(torch.tensor))
    flags = st.lists(st.booleans(), min_size=3 * steps, max_size=3 * steps)
    resets = data.draw(st.none() | flags.map(lambda f: torch.tensor(f).reshape(3, steps)))
    cell, x, state = case(VARIANTS[name], steps)
    whole, end = unroll(cell, x, state, lengths, resets)
    first, second = slice(0, cut), slice(cut, steps)
    y1, middle = unroll(cell, x[:, first], state, None if lengths is None else lengths.clamp(max=cut),
                        None if resets is None else resets[:, first])  # fmt: skip
    y2, last = unroll(cell, x[:, second], middle, None if lengths is None else (lengths - cut).clamp(min=0),
                      None if resets is None else resets[:, second])  # fmt: skip
    assert_close([torch.cat([y1, y2], 1)], [whole], 1e-12)
    assert_close(states_of(cell, last), states_of(cell, end), 1e-12)


@EVERY
def test_a_reset_begins_a_sequence_of_its_own(name: str) -> None:
    cell, x, state = case(VARIANTS[name], 6)
    resets = torch.zeros(3, 6, dtype=torch.bool)
    resets[:, 4] = True
    y, end = unroll(cell, x, state, None, resets)
    before, _ = unroll(cell, x[:, :4], state)
    after, fresh = unroll(cell, x[:, 4:])
    assert_close([y], [torch.cat([before, after], 1)], 1e-12)
    assert_close(states_of(cell, end), states_of(cell, fresh), 1e-12)


@EVERY
def test_rows_of_a_batch_do_not_meet(name: str) -> None:
    cell, x, state = case(VARIANTS[name], 5)
    lengths = torch.tensor([2, 5, 0])
    y, end = unroll(cell, x, state, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = cell.pack(tuple(s[row : row + 1] for s in states_of(cell, state)))
        y_row, end_row = unroll(cell, x[row : row + 1, :length], alone)
        assert_close([y[row : row + 1, :length]], [y_row], 1e-12)
        assert_close([s[row : row + 1] for s in states_of(cell, end)], states_of(cell, end_row), 1e-12)
        assert not y[row, length:].any()


@EVERY
@pytest.mark.parametrize(("batch", "steps"), [(0, 3), (2, 0), (0, 0)])
def test_nothing_in_nothing_out(name: str, batch: int, steps: int) -> None:
    cell = VARIANTS[name](2, 3)
    y, end = unroll(cell, torch.randn(batch, steps, 2), None, torch.zeros(batch, dtype=torch.int64))
    assert y.shape == (batch, steps, cell.output_size)
    assert [s.shape for s in states_of(cell, end)] == [(batch, size) for size in cell.state_sizes]


@EVERY
@pytest.mark.parametrize("lengths", [[2, 5, 0], [0, 0, 0], [5, 5, 5]])
def test_gradients_are_those_of_the_real_steps_alone(name: str, lengths: list[int]) -> None:
    cell, x, state = case(VARIANTS[name], 5)
    y, _ = unroll(cell, x, state, torch.tensor(lengths))
    found = gradients([y], [*cell.parameters(), *states_of(cell, state)])
    alone = [
        unroll(cell, x[row : row + 1, :length], cell.pack(tuple(s[row : row + 1] for s in states_of(cell, state))))[0]
        for row, length in enumerate(lengths)
    ]
    padded = torch.cat([torch.nn.functional.pad(a, (0, 0, 0, 5 - a.shape[1])) for a in alone])
    if any(lengths):
        assert_close(found, gradients([padded], [*cell.parameters(), *states_of(cell, state)]), 1e-12)
    else:
        assert not any(g.any() for g in found)


@EVERY
def test_a_stream_of_single_steps_equals_the_sequence(name: str) -> None:
    cell, x, state = case(VARIANTS[name], 4)
    whole, end = unroll(cell, x, state)
    outputs = []
    for x_t in x.unbind(1):
        y, state = cell(x_t, state, **beside(cell, x_t))
        outputs.append(y)
    assert_close([torch.stack(outputs, 1)], [whole], 1e-12)
    assert_close(states_of(cell, state), states_of(cell, end), 1e-12)


def case(build: Build, steps: int):  # type: ignore[no-untyped-def]
    torch.manual_seed(4)
    cell = build(2, 3, dtype=torch.float64)
    return cell, torch.randn(3, steps, 2, dtype=torch.float64), random_state(cell, 3)
