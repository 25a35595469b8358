"""What the generated tests run over: every registered cell in its variants, every backend, awkward sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from tidegate.cells import CELLS, Cell
from tidegate.cells.base import State
from tidegate.compile import select
from tidegate.compile.call import Call

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "rnn": [
        {"activation": "relu"},
        {"activation": "leaky_relu"},
        {"activation": "sigmoid"},
        {"activation": "gelu"},
        {"activation": torch.sin},
        {"output_size": 2},
    ],
    "lstm": [{"proj_size": 2}],
    "lstm_peephole": [{"candidate_peephole": True}, {"stop_gradient": True}],
    "lstm_peephole_full": [{"candidate_peephole": True}],
    "janet": [{"beta": 0.0}],
    "ran": [{"output": "identity"}],
    "indrnn": [{"activation": "tanh"}],
    "rhn": [{"depth": 1}, {"depth": 3}],
    "slstm": [{"forget": "exp"}],
    "t_lstm": [{"discount": "inverse"}],
}
"""Options to try beside the defaults; every cell is also built without bias."""

STOCK = ("rnn", "lstm", "gru", "gru_reset_before", "gru_merge")
"""The cells that are tried in every way; the rest of the catalogue in the quicker of them."""

CUT = {"lstm_peephole stop_gradient=True"}
"""Variants whose gradient is not their derivative: their paper cuts it."""

POSITIVE = {"n", "waited"}
"""States that are sums of positive numbers."""


class Mine(Cell):
    """A cell as a user writes it."""

    gates = ("update", "candidate")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return torch.lerp(h, torch.tanh(n), torch.sigmoid(u))


class TwoStates(Cell):
    """A user's cell with two states and a product inside the step."""

    gates = ("a", "b")
    states = ("h", "slow")

    def step(self, x: Tensor, h: Tensor, slow: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        a, b = self.split(x)
        slow = 0.9 * slow + 0.1 * torch.tanh(a + self.recurrent("a", h))
        return torch.tanh(b + self.recurrent("b", slow * h) + slow), slow


class Direction(Cell):
    """A cell whose step has neither value nor derivative where its input is zero, as padding may be."""

    gates = ("n",)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(self.recurrent("n", h) + x / x.square().sum(-1, keepdim=True).sqrt())


Build = Callable[..., Cell]


def _with(cell: type[Cell], options: dict[str, Any]) -> Build:
    return lambda input_size, hidden_size, **more: cell(input_size, hidden_size, **options, **more)


def _variants() -> dict[str, Build]:
    built: dict[str, Build] = {
        "mine": Mine,
        "two_states": TwoStates,
        "direction": _with(Direction, {"bias": False}),
    }
    for name, cell in CELLS.items():
        for options in [{}, {"bias": False}, *OPTIONS.get(name, [])]:
            said = "".join(f" {k}={getattr(v, '__name__', v)}" for k, v in options.items())
            built[name + said] = _with(cell, options)
    return built


VARIANTS = _variants()


def states_of(cell: Cell, state: State) -> tuple[Tensor, ...]:
    return cell.unpack(state)


def random_state(cell: Cell, batch: int, dtype: torch.dtype | None = None) -> State:
    """A state that requires gradients, of the weights' dtype unless another is given."""
    drawn = []
    for name, size in zip(cell.states, cell.state_sizes, strict=True):
        state = torch.randn(batch, size, dtype=dtype or cell.weight_ih.dtype).mul_(0.5)
        drawn.append((state.abs_().add_(0.5) if name in POSITIVE else state).requires_grad_())
    return cell.pack(tuple(drawn))


def beside(cell: Cell, x: Tensor) -> dict[str, Tensor]:
    """What the cell reads beside `x` [..., I], made from x: cut alike, in the padding where x is."""
    first = x[..., :1]
    made = {
        "elapsed": torch.where(first.isfinite(), first, 0.0).square() + 0.2,
        "observed": (x > -0.3).to(x.dtype),
    }
    return {name: made[name] for name in cell.inputs}


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """`select.unroll`, with what the cell reads beside x."""
    return select.unroll(cell, x, state, lengths, resets, backend, **beside(cell, x))


def call(cell: Cell, x: Tensor, lengths: Tensor | None = None, resets: Tensor | None = None) -> Call:
    """The call that `unroll` makes of these, noise apart."""
    return select.checked(cell, x, None, lengths, resets, beside(cell, x))


def some_lengths(batch: int, steps: int) -> Tensor:
    """Lengths in no order: T, 0, 1 and what lies between, as far as the batch goes."""
    generator = torch.Generator().manual_seed(batch * 100 + steps)
    lengths = torch.randint(0, steps + 1, (batch,), generator=generator)
    for row, length in zip(range(batch - 1, -1, -1), (0, steps, 1), strict=False):
        lengths[row] = length
    return lengths


def weighted_sum(tensors: Sequence[Tensor]) -> Tensor:
    """A scalar to which every entry of every tensor contributes differently."""
    total = torch.zeros((), dtype=tensors[0].dtype)
    for number, tensor in enumerate(tensors):
        weights = torch.cos(torch.arange(tensor.numel(), dtype=tensor.dtype) + number).reshape(tensor.shape)
        total = total + (tensor * weights).sum()
    return total


def gradients(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of `weighted_sum(results)` to every leaf; zeros where nothing depends on it."""
    found = torch.autograd.grad(weighted_sum(results), list(leaves), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]


def assert_close(got: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> None:
    """Every entry within `tolerance`, or within it relative to a tensor whose largest entry exceeds 1."""
    error = difference(got, expected)
    assert error <= tolerance, f"{error} > {tolerance}"


def difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the smallest tolerance at which these are close; NaN where there is any."""
    found = [0.0]
    for g, e in zip(got, expected, strict=True):
        assert g.shape == e.shape, len(found)
        if e.numel():
            found.append(float((g - e).detach().abs().max()) / max(1.0, float(e.detach().abs().max())))
    return float(torch.tensor(found, dtype=torch.float64).max())
