"""Every cell, with every technique, compiled: outputs and all gradients are the reference's."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tidegate.cells import Cell
from tidegate.compile import launch, memory
from tidegate.compile.launch import Replay
from tidegate.compile.select import BACKENDS

from .cases import (
    STOCK,
    VARIANTS,
    assert_close,
    beside,
    call,
    difference,
    gradients,
    random_state,
    some_lengths,
    states_of,
    unroll,
)

TECHNIQUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.3},
    "variational": {"variational_dropout": 0.3},
    "recurrent": {"recurrent_dropout": 0.3},
    "noise": {"zoneout": 0.2, "variational_dropout": 0.3, "recurrent_dropout": 0.1, "dropconnect": 0.2},
    "lengths": {},
    "resets": {},
    "rms_norm": {"rms_norm": True},
    "dropconnect": {"dropconnect": 0.3},
}
NORMS = ("layer_norm", "rms_norm")
RUN = ("llvm", "reference")
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-9}
HALF_A_UNIT = 2**-25
BATCHES, WIDTHS, STEPS = (1, 2, 17), (1, 17, 64, 100), (1, 2, 33)
MANY = 16 * (os.cpu_count() or 1) * 3 - 1
SIZES = list(itertools.product(BATCHES, WIDTHS, STEPS))
EVERY = list(itertools.product(VARIANTS, TECHNIQUES))
NORMED = [(name, technique) for name, technique in EVERY if technique in NORMS or name.startswith("sligru")]
"""Where a norm divides by what may be small: that of a technique, or the cell's own."""


def _quick() -> list[tuple[str, str]]:
    """What is tried at every change. Compiling takes the time: all noise at once, and of the catalogue beyond the
    stock cells either that or the norm; variants, which differ from their cell inside the step, at their plainest."""
    found = []
    for number, name in enumerate(VARIANTS):
        stock = name in (*STOCK, "mine", "two_states")
        some = ("layer_norm", "rms_norm", "noise") if stock else ("layer_norm", "noise")[number % 2 :][:1]
        wanted = ("plain", "lengths", "resets", *(some if "=" not in name else ()))
        found += [(name, technique) for technique in wanted]
    return found


QUICK = _quick()


@pytest.fixture(autouse=True)
def memory_full_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if dtype == torch.uint8:
            return torch.full(tuple(shape), 255, dtype=dtype)
        return torch.full(tuple(shape), float("nan"), dtype=dtype)

    make = Replay._make

    def poisoning(self: Replay) -> list[Tensor]:
        made = make(self)
        for each, (by, _) in zip(made, self._makers, strict=True):
            if by is torch.empty_like:
                each.fill_(float("nan"))
        return made

    monkeypatch.setattr(Replay, "_make", poisoning)
    monkeypatch.setattr(launch, "KEPT_BYTES", -1)
    monkeypatch.setattr(memory, "fresh", poisoned)
    monkeypatch.setattr(memory, "MOST_BYTES", -1)


def built(name: str, technique: str, hidden: int, dtype: torch.dtype) -> Cell:
    """A cell with the weights that float32 draws; the same one each time, as tracing it takes the most time."""
    return _built(name, technique if TECHNIQUES[technique] else "plain", max(hidden, 3 if "proj" in name else 1), dtype)


@lru_cache(maxsize=6)
def _built(name: str, technique: str, hidden: int, dtype: torch.dtype) -> Cell:
    torch.manual_seed(7)
    return VARIANTS[name](5, hidden, dtype=torch.float32, **TECHNIQUES[technique]).to(dtype)


def compare(name: str, technique: str, batch: int, hidden: int, steps: int, dtype: torch.dtype) -> None:
    # A row of one number, normalised, is 0, and has no direction; that of another is its sign, whose gradient is 0, and
    # in float32 nothing but rounding over what may be small.
    if (name, hidden) == ("direction", 1) and (technique == "layer_norm" or dtype == torch.float32):
        return
    where = (name, technique, batch, hidden, steps, dtype)
    kernel, reference = (results(*where, backend) for backend in RUN)
    assert_close(kernel, reference, TOLERANCE[dtype])


def compare_with_exact(name: str, technique: str, batch: int, hidden: int, steps: int) -> None:
    """Hold a kernel with a norm to the exact results: to 2e-5, or to twice the reference's own error in float32.

    That is its largest when all that goes in is rounded this way or that, and the kernel's is then its median. A norm
    divides by what may be small, and 33 steps multiply what each adds: some of these random problems lose three digits
    of float32, whoever computes them, and one draw of a kernel's rounding may be five times another.
    """
    if (name, hidden) == ("direction", 1):
        return
    where = (name, technique, batch, hidden, steps)
    exact = results(*where, torch.float64, "reference")
    kernel = results(*where, torch.float32, "llvm")
    if difference(kernel, exact) > TOLERANCE[torch.float32]:
        own, found = (
            sorted(difference(results(*where, torch.float32, backend, seed), exact) for seed in range(9))
            for backend in ("reference", "llvm")
        )
        assert found[4] <= max(TOLERANCE[torch.float32], 2 * own[-1])


def results(
    name: str,
    technique: str,
    batch: int,
    hidden: int,
    steps: int,
    dtype: torch.dtype,
    backend: str,
    rounded: int | None = None,
) -> list[Tensor]:
    """Outputs, last states and all gradients; `rounded` seeds a change of all that goes in as float32 rounds it.

    What is drawn is drawn in float32, so that both types have the same problem.
    """
    cell = built(name, technique, hidden, dtype)
    # With seed 8 one of nas's products lies within 2e-9 of where relu has its kink, and rounding decides on which side.
    torch.manual_seed(9 if name.startswith("nas") else 8)
    x = torch.randn(batch, steps, 5).to(dtype).requires_grad_()
    drawn = random_state(cell, batch, torch.float32)
    states = [s.detach().to(dtype).requires_grad_() for s in states_of(cell, drawn)]
    if rounded is not None:
        cell = copy.deepcopy(cell)
    leaves = [x, *states, *cell.parameters()]
    if rounded is not None:
        by = torch.Generator().manual_seed(rounded)
        with torch.no_grad():
            for leaf in leaves:
                leaf.mul_(1 + HALF_A_UNIT * torch.randn(leaf.shape, generator=by, dtype=dtype))
    lengths = some_lengths(batch, steps) if technique in ("lengths", "resets") else None
    resets = torch.arange(steps).expand(batch, steps) % 3 == 1 if technique == "resets" else None
    torch.manual_seed(11)
    y, end = unroll(cell, x, cell.pack(tuple(states)), lengths, resets, backend=backend)
    everything = [y, *states_of(cell, end)]
    return [t.detach() for t in (*everything, *gradients(everything, leaves))]


def some_sizes(name: str, technique: str, dtype: torch.dtype) -> list[tuple[int, int, int]]:
    """Two of all sizes, with other steps for each technique. Kernels take the time, and few rows have one of their own:
    a cell has few in one dtype and many in the other. One unit, of which all sizes are alike, takes another too.
    """
    number = list(VARIANTS).index(name)
    few = (number // 2 % 2 == 0) == (dtype == torch.float64)
    widths = (1, 64) if number % 4 == 0 and "bias=False" not in name else WIDTHS[1:]
    at = number + list(TECHNIQUES).index(technique)
    return [
        ((1, 2)[(at + n) % 2] if few else 17, widths[(number + n) % len(widths)], STEPS[(at + n) % len(STEPS)])
        for n in range(2)
    ]


@pytest.mark.parametrize(("name", "technique"), QUICK)
def test_equals_the_reference(name: str, technique: str) -> None:
    for size in some_sizes(name, technique, torch.float64):
        compare(name, technique, *size, torch.float64)


@pytest.mark.parametrize(
    ("name", "technique"), [pair for pair in QUICK if pair[1] not in NORMS and "=" not in pair[0]][::3]
)
def test_equals_the_reference_in_float32(name: str, technique: str) -> None:
    for size in some_sizes(name, technique, torch.float32):
        compare(name, technique, *size, torch.float32)


@pytest.mark.parametrize(
    ("name", "technique"),
    [pair for pair in QUICK if pair[0] in STOCK and pair[1] not in NORMS]
    + [(name, ("plain", "lengths", "noise")[at % 3]) for at, name in enumerate(VARIANTS) if at % 3 == 1],
)
def test_many_rows_equal_the_reference_in_float32(name: str, technique: str) -> None:
    """So many that a matrix unit multiplies, where the machine has one: blocks of whole tiles, and not."""
    at = list(VARIANTS).index(name)
    for batch, hidden, steps in ((32, 64, 33), (MANY, 17, 5)):
        compare(name, technique, batch, hidden, min(steps, STEPS[at % len(STEPS)] + 2), torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in VARIANTS if "bias=False" not in name])
def test_few_rows_and_steps_which_take_matrices_as_they_stand_equal_the_reference(name: str) -> None:
    hidden = (17, 64, 1)[list(VARIANTS).index(name) % 3]
    for batch, steps in ((1, 1), (2, 2), (1, 3)):
        cell = built(name, "plain", hidden, torch.float64)
        x = torch.randn(batch, steps, 5, dtype=torch.float64)
        state = random_state(cell, batch)
        kernel, reference = (unroll(cell, x, state, backend=backend) for backend in RUN)
        assert_close([kernel[0], *states_of(cell, kernel[1])], [reference[0], *states_of(cell, reference[1])], 1e-11)


@pytest.mark.parametrize(("name", "technique"), [pair for pair in QUICK if pair[1] in NORMS])
def test_a_norm_in_float32_rounds_no_more_than_the_reference(name: str, technique: str) -> None:
    for size in some_sizes(name, technique, torch.float32):
        compare_with_exact(name, technique, *size)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "technique"), NORMED)
def test_a_norm_in_float32_rounds_no_more_than_the_reference_at_every_size(name: str, technique: str) -> None:
    for size in SIZES:
        compare_with_exact(name, technique, *size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "technique", "dtype"),
    [
        pytest.param(
            *(*pair, dtype),
            # About half of the cells are beyond 2e-5 somewhere; which, depends on the machine.
            marks=[pytest.mark.xfail(reason="beyond 2e-5 at some sizes", strict=False)]
            * (pair in NORMED and dtype == torch.float32),
        )
        for pair in EVERY
        for dtype in TOLERANCE
    ],
)
def test_equals_the_reference_at_every_size(name: str, technique: str, dtype: torch.dtype) -> None:
    for size in SIZES:
        compare(name, technique, *size, dtype)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_cell_compiles(name: str) -> None:
    cell = built(name, "plain", 4, torch.float32)
    reason = BACKENDS["llvm"].refuses(call(cell, torch.randn(2, 3, 5)))
    assert reason is None, reason()


@pytest.mark.parametrize(
    ("name", "technique"),
    [
        pytest.param(name, technique, marks=[] if often else [pytest.mark.slow])
        for number, name in enumerate(name for name in VARIANTS if "bias" not in name)
        for technique in ("plain", "layer_norm", "lengths")
        for often in (name in STOCK or (technique != "layer_norm" and " " not in name and number % 3 == 0),)
    ],
)
def test_a_row_has_the_same_bits_whatever_else_is_in_the_batch(name: str, technique: str) -> None:
    same_bits(name, technique, 9)


@pytest.mark.parametrize("technique", ["plain", "lengths"])
@pytest.mark.parametrize("name", STOCK)
def test_a_row_of_many_has_the_same_bits_whatever_else_is_in_the_batch(name: str, technique: str) -> None:
    same_bits(name, technique, MANY)


def same_bits(name: str, technique: str, rows: int) -> None:
    cell = built(name, technique, 17, torch.float32)
    x = torch.randn(rows, 6, 5)
    lengths = torch.tensor([6, 2, 5, 0, 6, 3, 6, 1, 4]).repeat(-(-rows // 9))[:rows] if technique == "lengths" else None
    state = tuple(s.detach() for s in states_of(cell, random_state(cell, rows)))

    def run(x: Tensor, states: Sequence[Tensor], lengths: Tensor | None, threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        with torch.no_grad():
            y, end = unroll(cell, x, cell.pack(tuple(states)), lengths, backend="llvm")
        return [y, *states_of(cell, end)]

    whole = run(x, state, lengths, 1)
    kept = [2, 4]
    others = torch.randn(rows, 6, 5)
    others[kept] = x[kept]
    other_states = [torch.randn_like(s).abs() for s in state]
    for s, o in zip(state, other_states, strict=True):
        o[kept] = s[kept]
    for threads in (1, 2):
        for again in (run(x, state, lengths, threads), run(others, other_states, lengths, threads)):
            for a, b in zip(whole, again, strict=True):
                assert torch.equal(a[kept], b[kept])
    if lengths is not None:
        longer = torch.cat([x, torch.full((rows, 3, 5), float("nan"))], 1)
        for a, b in zip(whole, run(longer, state, lengths, 1), strict=True):
            assert_close([b[kept, :6] if b.dim() == 3 else b[kept]], [a[kept]], 1e-6)
    few = run(x[kept], [s[kept] for s in state], None if lengths is None else lengths[kept], 1)
    assert_close(few, [a[kept] for a in whole], 1e-6)


@pytest.mark.parametrize(("batch", "steps"), [(0, 3), (2, 0), (0, 0)])
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "mine"])
def test_nothing_in_nothing_out(name: str, batch: int, steps: int) -> None:
    cell = built(name, "plain", 4, torch.float64)
    x = torch.randn(batch, steps, 5, dtype=torch.float64, requires_grad=True)
    state = random_state(cell, batch)
    y, end = unroll(cell, x, state, backend="llvm")
    assert y.shape == (batch, steps, cell.output_size)
    assert_close(states_of(cell, end), states_of(cell, state), 0.0)
    assert_close(gradients(states_of(cell, end), states_of(cell, state)),
                 gradients(states_of(cell, state), states_of(cell, state)), 0.0)  # fmt: skip


def test_what_steps_read_beside_is_given_to_the_kernel() -> None:
    reads = [name for name, build in VARIANTS.items() if build(5, 4).inputs]
    assert reads
    for name in reads:
        cell = built(name, "plain", 4, torch.float32)
        assert beside(cell, torch.randn(2, 3, 5)).keys() == set(cell.inputs)
