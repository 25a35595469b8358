"""What every cell gets from the base."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from tidegate.cells import CELLS, GRU, LSTM, Cell, Elman
from tidegate.errors import ConfigError, ShapeError


class Gated(Cell):
    gates = ("update", "candidate")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        u, n = self.gate(x, h)
        return torch.lerp(h, torch.tanh(n), torch.sigmoid(u))


def test_a17_a_cell_in_six_lines_computes_its_equation() -> None:
    cell = Gated(3, 4)
    x, h = torch.randn(2, 3), torch.randn(2, 4)
    both = nn.functional.linear(x, cell.weight_ih, cell.bias_ih) + nn.functional.linear(h, cell.weight_hh, cell.bias_hh)
    u, n = torch.sigmoid(both[:, :4]), torch.tanh(both[:, 4:])
    y, state = cell(x, h)
    torch.testing.assert_close(y, (1 - u) * h + u * n)
    assert state is y


def test_parameters_are_torchs() -> None:
    for ours, theirs in ((LSTM, nn.LSTMCell), (GRU, nn.GRUCell), (Elman, nn.RNNCell)):
        torch.manual_seed(0)
        a = ours(3, 5)
        torch.manual_seed(0)
        b = theirs(3, 5)
        assert list(a.state_dict()) == list(b.state_dict())
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("name", list(CELLS))
def test_like_keeps_the_options_and_draws_its_own_weights(name: str) -> None:
    cell = CELLS[name](3, 4, bias=False, dtype=torch.float64)
    other = cell.like(5, 6)
    assert type(other) is type(cell)
    assert (other.input_size, other.hidden_size, other.bias, other.weight_hh.dtype) == (5, 6, False, torch.float64)
    assert not torch.equal(cell.like(3, 4).weight_hh, cell.weight_hh)


def test_like_copies_a_module_given_as_an_option() -> None:
    cell = Elman(3, 4, activation=nn.PReLU())
    other = cell.like(3, 4)
    assert other.f is not cell.f
    assert len(list(other.parameters())) == 5


def test_like_copies_options_given_by_position() -> None:
    class Own(Gated):
        def __init__(self, input_size: int, hidden_size: int, f: nn.Module) -> None:
            super().__init__(input_size, hidden_size)
            self.f = f

    cell = Own(3, 4, nn.PReLU(init=0.7))
    assert cell.like(5, 4).f is not cell.f
    assert float(cell.like(5, 4).f.weight.detach()) == pytest.approx(0.7)


def test_like_takes_sizes_given_by_name_and_follows_moves() -> None:
    cell = Gated(hidden_size=4, input_size=3).double()
    other = cell.like(7, 2)
    assert other.weight_ih.shape == (4, 7)
    assert other.weight_ih.dtype == torch.float64


def test_copies_and_pickles() -> None:
    cell = LSTM(3, 4, proj_size=2)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert all(torch.equal(p, q) for p, q in zip(cell.parameters(), other.parameters(), strict=True))
        assert other.like(5, 4).proj_size == 2


def test_recurrent_is_one_gates_product() -> None:
    cell, v = GRU(3, 4), torch.randn(2, 4)
    expected = v @ cell.weight_hh[4:8].T
    torch.testing.assert_close(cell.recurrent("z", v, bias=False), expected)
    torch.testing.assert_close(cell.recurrent("z", v), expected + cell.recurrent_bias("z"))
    assert GRU(3, 4, bias=False).recurrent_bias("z") == 0.0


def test_reset_parameters_draws_what_the_cell_owns_and_only_that() -> None:
    cell = Elman(3, 4, activation=nn.PReLU(init=0.7), output_size=2)
    before = [p.clone() for p in cell.parameters()]
    cell.reset_parameters()
    changed = {name for (name, p), old in zip(cell.named_parameters(), before, strict=True) if not torch.equal(p, old)}
    assert changed == {"weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ho", "bias_ho"}


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8"])
def test_sizes_are_positive_integers(size: object) -> None:
    with pytest.raises(ConfigError, match="input_size to be a positive integer; got "):
        GRU(size, 4)
    with pytest.raises(ConfigError, match="hidden_size to be a positive integer"):
        GRU(4, size)


def test_a_declaration_must_name_gates() -> None:
    class Nameless(Cell):
        pass

    class Twice(Cell):
        gates = ("a", "a")

    for cell in (Nameless, Twice):
        with pytest.raises(ConfigError, match="gates, a tuple of different names"):
            cell(3, 4)


def test_one_step_says_what_it_expects() -> None:
    with pytest.raises(ShapeError, match=r"one step of GRU; expected input of shape \[B, 3\]; got shape \[2, 4\]"):
        GRU(3, 4)(torch.randn(2, 4))


def test_lstm_refuses_a_projection_that_widens() -> None:
    with pytest.raises(ConfigError, match="proj_size smaller than hidden_size=4; got 4"):
        LSTM(3, 4, proj_size=4)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lstm'"):
        CELLS["lsmt"]
    with pytest.raises(ConfigError, match="did you mean 'tanh'"):
        Elman(3, 4, activation="tahn")
    with pytest.raises(ConfigError, match="a name or a function"):
        Elman(3, 4, activation=3)
