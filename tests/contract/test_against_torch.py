"""A1, A2, A5, A9: every cell that torch.nn has too agrees with it on every backend, forward and all gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate import nn as tnn
from tidegate.cells import Cell
from tidegate.compile.select import BACKENDS, unroll

from .cases import VARIANTS, assert_close, gradients, random_state, some_lengths, states_of

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
TORCH = {
    "rnn": lambda *sizes, **o: torch.nn.RNN(*sizes, nonlinearity="tanh", **o),
    "rnn activation=relu": lambda *sizes, **o: torch.nn.RNN(*sizes, nonlinearity="relu", **o),
    "rnn bias=False": lambda *sizes, **o: torch.nn.RNN(*sizes, bias=False, **o),
    "lstm": torch.nn.LSTM,
    "lstm bias=False": lambda *sizes, **o: torch.nn.LSTM(*sizes, bias=False, **o),
    "lstm proj_size=2": lambda *sizes, **o: torch.nn.LSTM(*sizes, proj_size=2, **o),
    "gru": torch.nn.GRU,
    "gru bias=False": lambda *sizes, **o: torch.nn.GRU(*sizes, bias=False, **o),
}
RUN = [name for name in BACKENDS if name != "scan"]
"""torch.nn has no linear recurrence, which is all that `scan` runs."""
BATCHES, WIDTHS, STEPS = (1, 17), (1, 17, 64), (1, 2, 33)


def test_every_cell_with_a_native_kernel_is_compared_here() -> None:
    native = {name for name, build in VARIANTS.items() if build(3, 4).native() and "output_size" not in name}
    assert native == set(TORCH)


def run_torch(module: torch.nn.RNNBase, x: Tensor, states: tuple[Tensor, ...], lengths: Tensor | None) -> list[Tensor]:
    """Outputs and final states of a one-layer torch module; rows of length 0 are never shown to it."""

    def call(x: object, states: tuple[Tensor, ...]) -> tuple[object, tuple[Tensor, ...]]:
        y, after = module(x, states[0][None] if len(states) == 1 else tuple(s[None] for s in states))
        return y, ((after[0],) if len(states) == 1 else tuple(s[0] for s in after))

    if lengths is None:
        y, after = call(x, states)
        return [y, *after]  # type: ignore[list-item]
    rows = lengths.nonzero()[:, 0]
    outputs = torch.zeros(x.shape[0], x.shape[1], states[0].shape[1], dtype=x.dtype)
    if not len(rows):
        return [outputs, *states]
    packed = pack_padded_sequence(x[rows], lengths[rows], batch_first=True, enforce_sorted=False)
    y, after = call(packed, tuple(s[rows] for s in states))
    y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
    return [outputs.index_put((rows,), y), *(s.index_put((rows,), a) for s, a in zip(states, after, strict=True))]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("hidden", WIDTHS)
@pytest.mark.parametrize("backend", RUN)
@pytest.mark.parametrize("name", list(TORCH))
def test_cell_equals_torch(name: str, backend: str, hidden: int, dtype: torch.dtype) -> None:
    hidden = max(hidden, 3) if "proj" in name else hidden
    torch.manual_seed(1)
    cell: Cell = VARIANTS[name](5, hidden, dtype=dtype)
    module = TORCH[name](5, hidden, batch_first=True, dtype=dtype)
    module.load_state_dict({f"{k}_l0": v for k, v in cell.state_dict().items()})
    for batch, steps, ragged in itertools.product(BATCHES, STEPS, (False, True)):
        x = torch.randn(batch, steps, 5, dtype=dtype, requires_grad=True)
        state = random_state(cell, batch)
        lengths = some_lengths(batch, steps) if ragged else None
        y, after = unroll(cell, x, state, lengths, backend=backend)
        ours = [y, *states_of(cell, after)]
        theirs = run_torch(module, x, states_of(cell, state), lengths)
        assert_close(ours, theirs, TOLERANCE[dtype])
        shared = [x, *states_of(cell, state)]
        assert_close(
            gradients(ours, [*shared, *cell.parameters()]),
            gradients(theirs, [*shared, *module.parameters()]),
            TOLERANCE[dtype],
        )


STACKS = list(itertools.product(("RNN", "GRU", "LSTM"), (1, 2, 3), (False, True), (False, True)))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backend", RUN)
@pytest.mark.parametrize(("kind", "layers", "both", "batch_first"), STACKS)
def test_stack_equals_torch(
    kind: str, layers: int, both: bool, batch_first: bool, backend: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(2)
    batch, steps, hidden = 5, 7, 6
    options = {"bidirectional": both, "batch_first": batch_first, "dtype": dtype}
    module = getattr(torch.nn, kind)(4, hidden, layers, **options)
    layer = getattr(tnn, kind)(4, hidden, layers, **options, backend=backend)
    layer.load_state_dict(module.state_dict())
    for ragged, given in itertools.product((False, True), (False, True)):
        x = torch.randn((batch, steps, 4) if batch_first else (steps, batch, 4), dtype=dtype, requires_grad=True)
        count = 2 if kind == "LSTM" else 1
        initial = [torch.randn(layers * (1 + both), batch, hidden, dtype=dtype).requires_grad_() for _ in range(count)]
        hx = None if not given else initial[0] if count == 1 else tuple(initial)
        lengths = torch.tensor([3, 7, 1, 7, 5]) if ragged else None
        y, after = layer(x, hx, lengths=lengths)
        packed = x if lengths is None else pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False)
        expected, expected_after = module(packed, hx)
        if lengths is not None:
            expected, _ = pad_packed_sequence(expected, batch_first)
        ours = [y, *([after] if count == 1 else after)]
        theirs = [expected, *([expected_after] if count == 1 else expected_after)]
        assert_close(ours, theirs, TOLERANCE[dtype])
        leaves = [x, *(initial if given else [])]
        assert_close(
            gradients(ours, [*leaves, *layer.parameters()]),
            gradients(theirs, [*leaves, *module.parameters()]),
            TOLERANCE[dtype],
        )
