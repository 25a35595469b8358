"""A14: cells whose products are convolutions, held against sums over taps, written out step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, sigmoid, tanh

from tidegate.cells import (
    FRAME_CELLS,
    LSTM,
    SCRN,
    ConvGRU,
    ConvLSTM,
    ConvLSTMPlain,
    Convolutional,
    ConvRNN,
    Elman,
    GRUResetBefore,
    IndRNN,
    LSTMPeephole,
    MinGRU,
)  # fmt: skip
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Recurrent
from tidegate.train.muon import Muon, orthogonal

B, T, C, H = 2, 3, 2, 3
FORMS: dict[str, dict[str, Any]] = {
    "1-D": {"size": 5},
    "1-D wide": {"size": 5, "kernel_size": 5, "dilation": 2, "padding_mode": "circular"},
    "2-D": {"size": (4, 3), "kernel_size": (3, 5), "dilation": (2, 1)},
    "2-D circular": {"size": (4, 3), "padding_mode": "circular"},
    "2-D of one place": {"size": (1, 1), "kernel_size": 1},
    "3-D": {"size": (2, 3, 2)},
    "3-D circular": {"size": (2, 3, 2), "kernel_size": (1, 3, 5), "padding_mode": "circular"},
}


def convolved(cell: Convolutional, v: Tensor, weight: Tensor) -> Tensor:
    """`y[p] = Σ_tap W[tap] v[p + dilation·(tap − middle)]`, a tap at a time."""
    dims = tuple(range(2, v.dim()))
    total = v.new_zeros(())
    for tap in itertools.product(*map(range, cell.kernel_sizes)):
        shift = [d * (t - k // 2) for d, t, k in zip(cell.dilation, tap, cell.kernel_sizes, strict=True)]
        seen = v.roll([-s for s in shift], dims)
        if cell.padding_mode == "zeros":
            for dim, s in zip(dims, shift, strict=True):
                place = torch.arange(v.shape[dim]) + s
                inside = (place >= 0) & (place < v.shape[dim])
                seen = seen * inside.reshape([-1 if d == dim else 1 for d in range(v.dim())])
        total = total + torch.einsum("oc,bc...->bo...", weight[(..., *tap)], seen)
    return total


def parts(cell: Convolutional, v: Tensor, which: str) -> tuple[Tensor, ...]:
    bias = getattr(cell, f"bias_{which}").reshape(-1, *[1] * len(cell.space_sizes))
    return (convolved(cell, v, getattr(cell, f"weight_{which}")) + bias).chunk(len(cell.gates), 1)


def rnn(cell: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    return (tanh(parts(cell, x, "ih")[0] + parts(cell, h, "hh")[0]),)


def lstm(cell: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = (a + b for a, b in zip(parts(cell, x, "ih"), parts(cell, h, "hh"), strict=True))
    p_i, p_f, p_o = (getattr(cell, f"weight_c{gate}", torch.tensor(0.0)) for gate in "ifo")
    c_new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
    return sigmoid(o + p_o * c_new) * tanh(c_new), c_new


def gru(cell: Any, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    (x_r, x_z, x_n), (h_r, h_z, _) = parts(cell, x, "ih"), parts(cell, h, "hh")
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = tanh(x_n + parts(cell, r * h, "hh")[2])
    return ((1 - z) * h + z * n,)


EQUATIONS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "conv_rnn": rnn,
    "conv_lstm": lstm,
    "conv_lstm_plain": lstm,
    "conv_gru": gru,
}


def build(name: str, **options: Any) -> Convolutional:
    torch.manual_seed(0)
    return FRAME_CELLS[name](C, H, dtype=torch.float64, **options)


def frames(cell: Convolutional, *shape: int) -> Tensor:
    return torch.randn(*shape, *cell.space_sizes, dtype=torch.float64).requires_grad_()


def test_every_cell_of_frames_has_its_equation_here() -> None:
    assert set(EQUATIONS) == set(FRAME_CELLS)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", EQUATIONS)
def test_a14_equation(name: str, form: str) -> None:
    """Outputs, last states and the gradients of inputs, weights and initial states."""
    cell = build(name, **FORMS[form])
    x = frames(cell, B, T, C)
    begun = [frames(cell, 1, B, H) for _ in cell.states]
    states = tuple(s[0] for s in begun)
    outputs = []
    for t in range(T):
        states = EQUATIONS[name](cell, x[:, t], *states)
        outputs.append(states[0])
    y, state = Recurrent(cell)(x, cell.pack(tuple(begun)))
    ends = [s[0] for s in cell.unpack(state)]
    torch.testing.assert_close([y, *ends], [torch.stack(outputs, 1), *states], rtol=0, atol=1e-12)
    leaves = [x, *begun, *cell.parameters()]
    ours = torch.autograd.grad(sum((v.sin().sum() for v in (y, *ends)), torch.zeros(())), leaves)
    theirs = torch.autograd.grad(
        sum((v.sin().sum() for v in (torch.stack(outputs, 1), *states)), torch.zeros(())), leaves
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    assert all(g.abs().max() > 0 for g in ours)


@pytest.mark.parametrize("name", EQUATIONS)
def test_torchs_convolutions_read_the_same_parameters(name: str) -> None:
    cell = build(name, size=(4, 5), dilation=2, padding_mode="circular")
    theirs = nn.Conv2d(C, len(cell.gates) * H, 3, dilation=2, padding=2, padding_mode="circular", dtype=torch.float64)
    assert cell.bias_ih is not None
    theirs.load_state_dict({"weight": cell.weight_ih.data, "bias": cell.bias_ih.data})
    x = frames(cell, B, C)
    rows = x.movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(cell.project(rows), theirs(x).movedim(1, -1).flatten(0, 2), rtol=0, atol=1e-13)


PLAIN = {"conv_rnn": Elman, "conv_lstm": LSTMPeephole, "conv_lstm_plain": LSTM, "conv_gru": GRUResetBefore}


@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "bias": False}, {"rms_norm": True, "zoneout": 0.3}])
@pytest.mark.parametrize("name", PLAIN)
def test_with_one_place_it_is_the_plain_cell(name: str, options: dict[str, Any]) -> None:
    cell = build(name, size=(1, 1), kernel_size=1, **options).eval()
    plain = PLAIN[name](C, H, dtype=torch.float64, **options).eval()
    plain.load_state_dict(
        {key: value.reshape(plain.state_dict()[key].shape) for key, value in cell.state_dict().items()}
    )
    x = frames(cell, B, T, C)
    y, state = Recurrent(cell)(x)
    expected, expected_state = Recurrent(plain, backend="reference")(x[..., 0, 0])
    got = [y, *cell.unpack(state)]
    torch.testing.assert_close(
        [v[..., 0, 0] for v in got], [expected, *plain.unpack(expected_state)], rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("name", ["conv_rnn", "conv_lstm_plain", "conv_gru"])
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}])
def test_on_circular_frames_a_shift_of_the_input_is_a_shift_of_the_output(name: str, options: dict[str, Any]) -> None:
    x = torch.randn(B, T, C, 5, 4, dtype=torch.float64)
    moved = {}
    for mode in ("circular", "zeros"):
        layer = Recurrent(build(name, size=(5, 4), padding_mode=mode, **options), layers=2)
        shifted, _ = layer(x.roll((2, -1), (-2, -1)))
        moved[mode] = (shifted - layer(x)[0].roll((2, -1), (-2, -1))).abs().max()
    assert moved["circular"] < 1e-13
    assert moved["zeros"] > 1e-3


def test_parameters_are_drawn_from_as_far_as_kernels_are_large() -> None:
    cell = ConvLSTM(8, 16, size=(6, 6), kernel_size=(3, 5))
    assert cell.weight_ih.shape == (64, 8, 3, 5)
    assert cell.weight_hh.shape == (64, 16, 3, 5)
    assert cell.get_parameter("weight_ci").shape == (16, 6, 6)
    bound = (16 * 15) ** -0.5
    for parameter in cell.parameters():
        assert 0.8 * bound < parameter.abs().max() <= bound
    assert ConvLSTM(8, 16, size=6, init="uniform").weight_hh.abs().max() <= (16 * 3) ** -0.5


def test_the_identity_is_the_convolution_that_changes_nothing() -> None:
    cell = ConvRNN(C, H, size=(4, 3), kernel_size=(3, 5), activation="relu", init="identity", bias=False)
    state = torch.rand(B, H, 4, 3)
    torch.testing.assert_close(cell(torch.zeros(B, C, 4, 3), state)[1], state)


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_cell_alone_takes_and_gives_frames(name: str) -> None:
    cell = build(name, size=(4, 3))
    x, state = frames(cell, B, T, C), None
    y, end = Recurrent(cell)(x)
    for t in range(T):
        got, state = cell(x[:, t], state)
        torch.testing.assert_close(got, y[:, t], rtol=0, atol=1e-13)
    assert state is not None
    torch.testing.assert_close([s[0] for s in cell.unpack(end)], list(cell.unpack(state)), rtol=0, atol=1e-13)


def test_matrices_are_one_for_all_places() -> None:
    cell = ConvRNN(C, H, size=(4, 3), output_size=2, dtype=torch.float64)
    y, state = Recurrent(cell)(frames(cell, B, T, C))
    assert y.shape == (B, T, 2, 4, 3)
    expected = torch.einsum("oh,bhij->boij", cell.weight_ho, state[0]) + cell.get_parameter("bias_ho")[:, None, None]
    torch.testing.assert_close(y[:, -1], expected)
    projected = ConvLSTMPlain(C, H, size=(4, 3), proj_size=2, dtype=torch.float64)
    y, (h, c) = Recurrent(projected, layers=2)(frames(cell, B, T, C))
    assert (y.shape, h.shape, c.shape) == ((B, T, 2, 4, 3), (2, B, 2, 4, 3), (2, B, H, 4, 3))


class ConvMinGRU(Convolutional, MinGRU):
    """A linear recurrence over frames."""


class ConvIndRNN(Convolutional, IndRNN):
    """Each channel of each place remembers itself alone."""


class ConvSCRN(Convolutional, SCRN):
    """A state twice as wide as the hidden size."""


@pytest.mark.parametrize(("kind", "reach"), [(ConvMinGRU, 1), (ConvIndRNN, 1), (ConvSCRN, 2)])
def test_places_see_what_is_near(kind: type[Convolutional], reach: int) -> None:
    """SCRN's output is two products away from its input."""
    torch.manual_seed(0)
    cell = kind(C, H, size=(4, 3), dtype=torch.float64)
    x = frames(cell, B, T, C)
    whole, end = Recurrent(cell)(x, lengths=[2, 3])
    stepwise, other = Recurrent(cell, backend="reference")(x, lengths=[2, 3])
    torch.testing.assert_close((whole, end), (stepwise, other), rtol=0, atol=1e-13)
    x_far = x.detach().clone()
    x_far[0, 0, 0, 3, 2] += 1.0
    changed = (Recurrent(cell)(x_far)[0] - Recurrent(cell)(x)[0])[0, 0].abs().amax(0) > 0
    assert changed[3 - reach :, 2 - reach :].all()
    assert not changed[: 3 - reach].any()


def test_muon_takes_kernels_as_matrices_of_what_they_give() -> None:
    torch.manual_seed(0)
    cell = ConvGRU(C, H, size=4)
    kernel = cell.weight_hh
    before, gradient = kernel.detach().clone(), torch.randn_like(kernel)
    kernel.grad = gradient
    Muon([(kernel, cell.gate_blocks()["weight_hh"])], [], lr=0.1).step()
    flat = orthogonal((1.95 * gradient).reshape(3, H, -1)).reshape(kernel.shape)
    torch.testing.assert_close(kernel.detach(), before - 0.1 * 0.2 * (3 * H) ** 0.5 * flat)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (4, 4), "kernel_size": 4}, r"an odd kernel_size.*got kernel_size=\(4, 4\)"),
        ({"size": (2, 2, 2, 2)}, r"1 to 3 axes of space.*got size=\(2, 2, 2, 2\)"),
        ({"size": ()}, r"1 to 3 axes of space"),
        ({"size": (4, 0)}, "size to be a positive integer.*got 0"),
        ({"size": 2.5}, "size to be a positive integer.*got 2.5"),
        ({"size": (4, 4), "kernel_size": (3, 3, 3)}, r"kernel_size to be a number, or one for each of 2 axes"),
        ({"size": 4, "dilation": 0}, "dilation to be a positive integer"),
        ({"size": 4, "padding_mode": "reflect"}, "padding_mode to be one of 'zeros', 'circular'.*got 'reflect'"),
        ({"size": 4, "kernel_size": 3, "dilation": 5, "padding_mode": "circular"}, r"round at most once.*got \(5,\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_built(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ConvGRU(C, H, **options)


def test_what_is_no_frame() -> None:
    cell = ConvGRU(C, H, size=(4, 3))
    with pytest.raises(ShapeError, match=r"frames of shape \[B, 2, 4, 3\]; got shape \[2, 2, 3, 4\]"):
        cell(torch.randn(B, C, 3, 4))
    with pytest.raises(ShapeError, match=r"frames of shape \[B, 3, 4, 3\]; got shape \[2, 2, 4, 3\]"):
        cell(torch.randn(B, C, 4, 3), torch.randn(B, C, 4, 3))
    with pytest.raises(ShapeError, match="whole frames, 12 rows each; got 5 rows"):
        cell.project(torch.randn(5, C))
