"""What every cell gets from the base."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tidegate.cells import CELLS, GRU, LSTM, Cell, Elman
from tidegate.compile.select import unroll
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
    assert (other.input_size, other.hidden_size, other.bias, other.weight_ih.dtype) == (5, 6, False, torch.float64)
    assert not torch.equal(cell.like(3, 4).weight_ih, cell.weight_ih)


def test_like_copies_a_module_given_as_an_option() -> None:
    cell = Elman(3, 4, activation=nn.PReLU())
    other = cell.like(3, 4)
    assert other.f is not cell.f
    assert sorted(other.state_dict()) == ["bias_hh", "bias_ih", "f.weight", "weight_hh", "weight_ih"]
    assert cell.activation is cell.f


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


def test_sizes_come_first() -> None:
    class Odd(Cell):
        gates = ("a",)

        def __init__(self, leak: float, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.leak = leak

        def step(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return self.leak * torch.tanh(self.gate(x, h)[0])

    with pytest.raises(ConfigError, match=r"Odd\(input_size, hidden_size, …\), its sizes \(4, 8\) first"):
        Odd(0.3, 4, 8).like(8, 8)


def test_a_class_has_one_name_and_replaces_itself() -> None:
    assert LSTM.registered() == "lstm"
    for _ in range(2):
        Anew = type("Anew", (Cell,), {"gates": ("a",), "__module__": __name__, "__qualname__": "Anew"})
        assert Anew.registered() == "Anew"
        assert CELLS["Anew"] is Anew
    with pytest.raises(RuntimeError, match="registered twice"):
        CELLS.add("lstm")(Anew)
    CELLS._items.pop("Anew")


def test_like_refuses_weights_that_it_would_lose() -> None:
    with pytest.raises(ConfigError, match="weight_hh to be a plain parameter of Parametrized"):
        parametrizations.spectral_norm(Gated(3, 4), "weight_hh").like(3, 4)
    with pytest.raises(ConfigError, match="bias_ih to be a plain parameter"):
        parametrizations.weight_norm(Gated(3, 4), "bias_ih", dim=None).like(3, 4)


def test_like_leaves_a_users_dtypes_alone() -> None:
    class Clocked(Gated):
        def __init__(self, input_size: int, hidden_size: int) -> None:
            super().__init__(input_size, hidden_size)
            self.register_buffer("clock", torch.arange(3, dtype=torch.float64))
            if input_size != hidden_size:
                self.map = nn.Linear(input_size, hidden_size)

    assert Clocked(4, 4).double().like(5, 4).map.weight.dtype == torch.float64
    cell = Clocked(3, 4)
    assert cell.like(5, 4).clock.dtype == torch.float64
    assert cell.like(5, 4).weight_hh.dtype == torch.float32


class Narrow(Gated):
    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return super().step(x, h)[:, :1]


class OneOfTwo(Gated):
    states = ("h", "c")

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:  # type: ignore[override]
        return super().step(x, h)


class ThreeGates(Gated):
    gates = ("update", "candidate", "more")


class Listed(Gated):
    def step(self, x: Tensor, h: Tensor) -> list[Tensor]:  # type: ignore[override]
        return [super().step(x, h)]


class NothingBack(Gated):
    def step(self, x: Tensor, h: Tensor) -> None:  # type: ignore[override]
        super().step(x, h)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            Narrow,
            r"one step of Narrow; expected step to give \(Tensor\[2, 4\]\); got Tensor\[2, 1\]; try: its gates are",
        ),
        (
            OneOfTwo,
            r"one step of OneOfTwo; expected step to give \(Tensor\[2, 4\], Tensor\[2, 4\]\); got Tensor\[2, 4\]",
        ),
        (
            ThreeGates,
            "one tensor for each gate; got too many values to unpack .* update, candidate, more, its states h",
        ),
        (NothingBack, "one step of NothingBack; .*; got None"),
        (Listed, r"one step of Listed; .*; got \[Tensor\[2, 4\]\]; try: "),
    ],
)
def test_a_step_that_gives_something_else(cell: type[Cell], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        cell(3, 4)(torch.randn(2, 3))
    with pytest.raises(ShapeError, match=message):
        unroll(cell(3, 4), torch.randn(2, 5, 3))


def test_a_steps_own_value_error_is_not_hidden() -> None:
    class Fails(Gated):
        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        Fails(3, 4)(torch.randn(2, 3))


def test_tensors_are_shown_by_their_shape() -> None:
    class Weighted(Gated):
        def __init__(self, input_size: int, hidden_size: int, *, weights: Tensor) -> None:
            super().__init__(input_size, hidden_size)

    assert repr(Weighted(3, 4, weights=torch.zeros(1000, 2))) == "Weighted(3, 4, weights=Tensor[1000, 2])"


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_a_norm_is_asked_for_by_true(name: str) -> None:
    with pytest.raises(ConfigError, match=f"building GRU; expected {name} to be True or False; got 'yes'"):
        GRU(3, 4, **{name: "yes"})


class Misses(Cell):
    gates = ("n",)
    states = ("h", "c")

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return h


class Unasked(Misses):
    states = ("h",)
    inputs = ("elapsed",)


class Takes(Misses):
    states = ("h", "c")
    inputs = ("elapsed",)

    def step(self, x: Tensor, *states: Tensor, **read: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return states


def test_a_step_takes_what_its_cell_declares() -> None:
    with pytest.raises(ConfigError, match=r"expected step\(self, x, h, c\).*got step\(self, x: .*, h: .*\): too many"):
        Misses(4, 3)
    with pytest.raises(ConfigError, match=r"expected step\(self, x, h, \*, elapsed\).*unexpected keyword argument"):
        Unasked(4, 3)
    Takes(4, 3)


@pytest.mark.parametrize("inputs", ["dt", ("lengths",), ("dt", "state"), ["dt"]])
def test_inputs_are_a_tuple_of_names_that_layers_leave_free(inputs: object) -> None:
    kind = type("Reading", (Cell,), {"gates": ("n",), "inputs": inputs, "step": lambda self, x, h, **_: h})
    with pytest.raises(ConfigError, match=r"inputs, a tuple of names that layers have no other use for \(lengths, "):
        kind(3, 4)


def test_gates_that_a_step_reads_and_its_class_does_not_have_are_told() -> None:
    class Missing(Cell):
        gates = ("n",)

        def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
            return torch.tanh(x + self.recurrent("m", h))

    for backend in ("auto", "reference"):
        with pytest.raises(ConfigError, match="a gate of Missing; expected one of 'n'; got 'm'"):
            unroll(Missing(3, 4), torch.zeros(2, 3, 3), backend=backend)
