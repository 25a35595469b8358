"""A14: layers over frames keep the promises that layers over vectors do."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.io import loadmat
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate.cells import FRAME_CELLS, ConvGRU, ConvLSTM, Convolutional, ConvRNN, TimeLSTM
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Recurrent, Stack, explain

B, T, C, H, SPACE = 3, 5, 2, 3, (4, 3)
LENGTHS = torch.tensor([5, 0, 3])
EVERY = list(FRAME_CELLS)


def layer_of(name: str, cell: dict[str, Any] | None = None, **options: Any) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(FRAME_CELLS[name](C, H, size=SPACE, dtype=torch.float64, **(cell or {})), **options)


def frames(*shape: int) -> Tensor:
    return torch.randn(*(shape or (B, T)), C, *SPACE, dtype=torch.float64)


def tensors(state: Any) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [t for each in state for t in tensors(each)]


def assert_same(got: Any, expected: Any) -> None:
    torch.testing.assert_close(tensors(got), tensors(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_shapes(name: str) -> None:
    layer = layer_of(name, layers=2, bidirectional=True)
    y, state = layer(frames())
    assert y.shape == (B, T, 2 * H, *SPACE)
    assert [s.shape for s in tensors(state)] == [(4, B, H, *SPACE)] * len(layer.cells[0].states)
    assert (layer.input_size, layer.output_size) == (C, 2 * H)
    assert_same(layer.initial_state(B), [torch.zeros_like(s) for s in tensors(state)])
    other, _ = Recurrent(layer.cells[0], hidden_sizes=(H, 4), connection="dense")(frames())
    assert other.shape == (B, T, 4, *SPACE)


@pytest.mark.parametrize("connection", [None, "residual", "highway", "dense", "skip"])
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_what_lies_between_layers_is_done_place_by_place(connection: str | None, norm: str | None) -> None:
    """With a kernel of one place, each place is a sequence of its own."""
    options: dict[str, Any] = {"layers": 2, "bidirectional": True, "connection": connection, "norm": norm}
    layer = layer_of("conv_gru", {"kernel_size": 1}, **options)
    alone = Recurrent(ConvGRU(C, H, size=1, kernel_size=1, dtype=torch.float64), **options)
    kept = {key: v[..., 0] if v.dim() == 4 else v for key, v in layer.state_dict().items()}
    alone.load_state_dict(kept)
    x = frames()
    y, state = layer(x, lengths=LENGTHS)
    places = x.permute(0, 3, 4, 1, 2).flatten(0, 2)[..., None]
    expected, after = alone(places, lengths=LENGTHS.repeat_interleave(12))
    assert_same(y, expected[..., 0].unflatten(0, (B, *SPACE)).permute(0, 3, 4, 1, 2))
    assert_same(state, after[..., 0].unflatten(1, (B, *SPACE)).movedim(-1, 2))


@pytest.mark.parametrize("name", EVERY)
def test_lengths_resets_and_both_directions(name: str) -> None:
    layer = layer_of(name, layers=2, bidirectional=True)
    x = frames()
    resets = torch.zeros(B, T, dtype=torch.bool)
    resets[0, 2] = resets[2, 1] = True
    y, state = layer(x, lengths=LENGTHS, resets=resets)
    begun = layer.initial_state(1)
    for row, (length, cut) in enumerate(zip(LENGTHS.tolist(), (2, 0, 1), strict=True)):
        assert (y[row, length:] == 0).all()
        if not length:
            assert all((s[:, row] == 0).all() for s in tensors(state))
            continue
        # Each layer breaks there, so that what lies before and behind are two sequences.
        first, _ = layer(x[row : row + 1, :cut], begun)
        last, _ = layer(x[row : row + 1, cut:length], begun)
        assert_same(y[row, :length], torch.cat([first, last], 1)[0])
    single = layer_of(name)
    whole, end = single(x, lengths=LENGTHS)
    assert_same(single(x[2:, :3])[1], [s[:, 2:] for s in tensors(end)])
    assert_same(single(x[2:, :3])[0], whole[2:, :3])


@pytest.mark.parametrize("name", EVERY)
def test_the_backward_direction_is_the_forward_one_of_what_is_turned(name: str) -> None:
    both = layer_of(name, bidirectional=True)
    alone = Recurrent(copy.deepcopy(both.cells[1]))
    x = frames()
    y, state = both(x)
    expected, after = alone(x.flip(1))
    assert_same(y[:, :, H:], expected.flip(1))
    assert_same([s[1:] for s in tensors(state)], after)


@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "zoneout": 0.2}, {"padding_mode": "circular"}])
@pytest.mark.parametrize("name", EVERY)
def test_split_and_carried_or_step_by_step_it_is_the_whole(name: str, options: dict[str, Any]) -> None:
    layer = layer_of(name, options, layers=2, residual=True, norm="layer").eval()
    x = frames()
    whole, end = layer(x)
    first, carried = layer(x[:, :2])
    second, after = layer(x[:, 2:], carried)
    assert_same(torch.cat([first, second], 1), whole)
    assert_same(after, end)
    state, stream = None, layer.stream(B)
    for t in range(T):
        y, state = layer.step(x[:, t], state)
        assert_same(y, whole[:, t])
        assert_same(stream(x[:, t]), whole[:, t])
    assert_same(state, end)
    assert_same(stream.state, end)
    stream.reset()
    assert_same(stream(x[:, 0]), whole[:, 0])


def test_states_of_unequal_layers_are_kept_apart() -> None:
    layer = layer_of("conv_lstm", hidden_sizes=(H, 4))
    x = frames()
    whole, end = layer(x)
    assert [[s.shape for s in each] for each in end] == [[(B, size, *SPACE)] * 2 for size in (H, 4)]
    first, carried = layer(x[:, :2])
    assert_same(torch.cat([first, layer(x[:, 2:], carried)[0]], 1), whole)
    assert_same(layer.stream(B)(x[:, 0]), whole[:, 0])
    with pytest.raises(
        ShapeError, match=r"h of cell 1.*expected shape \[3, 4, 4, 3\]; got a tensor of shape \[3, 3, 4, 3\]"
    ):
        layer(x, (end[0], end[0]))


def test_steps_first_packed_and_empty_batches() -> None:
    layer = layer_of("conv_gru", layers=2, dropout=0.3).eval()
    x, lengths = frames(), torch.tensor([5, 1, 3])
    y, state = layer(x, lengths=lengths)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    got, end = layer(packed)
    assert_same((pad_packed_sequence(got, batch_first=True)[0], end), (y, state))
    turned = layer_of("conv_gru", layers=2, batch_first=False)
    assert_same(turned(x.transpose(0, 1), lengths=lengths)[0].transpose(0, 1), y)
    for batch, steps in ((0, T), (B, 0), (0, 0)):
        y, state = layer(frames(batch, steps))
        assert (y.shape, state.shape) == ((batch, steps, H, *SPACE), (2, batch, H, *SPACE))


def test_memory_is_saved_by_running_steps_again() -> None:
    found = []
    for recompute in (False, True):
        layer = layer_of("conv_lstm", {"variational_dropout": 0.3}, layers=2, recompute=recompute)
        torch.manual_seed(1)
        x = frames().requires_grad_()
        found.append(torch.autograd.grad(layer(x, lengths=LENGTHS)[0].sin().sum(), [x, *layer.parameters()]))
    assert_same(*found)


def test_variational_dropout_drops_units_of_a_place_for_a_whole_sequence() -> None:
    layer = layer_of("conv_rnn", {"variational_dropout": (0.5, 0.0), "kernel_size": 1, "init": "uniform:1"})
    with torch.no_grad():
        layer.cells[0].weight_hh.zero_()
    x = torch.ones(B, T, C, *SPACE, dtype=torch.float64)
    y, _ = layer(x)
    assert (y == y[:, :1]).all()
    seen = {tuple(place.tolist()) for place in y[:, 0].movedim(1, -1).reshape(-1, H)}
    assert len(seen) == 4  # each of two channels at a place, dropped or not


def test_what_is_read_beside_frames_is_one_for_all_places() -> None:
    class ConvTimeLSTM(Convolutional, TimeLSTM):
        """How much is forgotten depends on the time between frames."""

    layer = Recurrent(ConvTimeLSTM(C, H, size=SPACE, dtype=torch.float64))
    x, elapsed = frames(), torch.rand(B, T, dtype=torch.float64)
    whole, _ = layer(x, elapsed=elapsed, lengths=LENGTHS)
    y, state = layer.step(x[:, 0], elapsed=elapsed[:, :1])
    assert_same(y[[0, 2]], whole[[0, 2], 0])
    y, _ = layer.cells[0](x[:, 1], tuple(s[0] for s in state), elapsed=elapsed[:, 1:2])
    assert_same(y[[0, 2]], whole[[0, 2], 1])


def test_the_compiled_loop_is_not_used_and_says_why() -> None:
    layer = layer_of("conv_lstm", layers=2)
    for verdict in explain(layer, frames(), lengths=LENGTHS).verdicts:
        assert verdict.chosen == "reference"
        assert verdict.refusals["llvm"] == (
            "convolutions join the rows of a frame, and kernels take each row by itself"
        )
        assert "ConvLSTM gives no coefficients" in str(verdict.refusals["scan"])


def test_layers_of_frames_in_a_stack() -> None:
    layer = layer_of("conv_gru")
    stack = Stack(layer, nn.Tanh(), Recurrent(ConvGRU(H, 2, size=SPACE, dtype=torch.float64)))
    x = frames()
    y, (state, _, _) = stack(x, lengths=LENGTHS)
    assert y.shape == (B, T, 2, *SPACE)
    assert_same(state, layer(x, lengths=LENGTHS)[1])


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((B, T, C), r"input of shape \[B, T, 2, 4, 3\]; got shape \[3, 5, 2\]"),
        ((B, T, C, 3, 4), r"input of shape \[B, T, 2, 4, 3\]; got shape \[3, 5, 2, 3, 4\]"),
        ((B, T, 1, 4, 3), r"got shape \[3, 5, 1, 4, 3\]"),
        ((B, T, C * 12), r"got shape \[3, 5, 24\]"),
    ],
)
def test_input_that_does_not_fit(shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        layer_of("conv_gru")(torch.randn(shape, dtype=torch.float64))


def test_states_steps_and_resets_that_do_not_fit() -> None:
    layer = layer_of("conv_lstm")
    x = frames()
    h = torch.zeros(1, B, H, *SPACE, dtype=torch.float64)
    with pytest.raises(
        ShapeError, match=r"the state c.*expected shape \[1, 3, 3, 4, 3\]; got a tensor of shape \[1, 3, 3, 12\]"
    ):
        layer(x, (h, h.flatten(3)))
    with pytest.raises(ShapeError, match=r"expected a tuple \(h, c\)"):
        layer(x, h)
    with pytest.raises(ShapeError, match=r"input of shape \[B, 2, 4, 3\]; got shape \[3, 5, 2, 4, 3\]"):
        layer.step(x)
    with pytest.raises(ShapeError, match=r"x of shape \[2, 2, 4, 3\], a row for each it has; got shape \[3, 2, 4, 3\]"):
        layer.stream(2)(x[:, 0])
    with pytest.raises(ShapeError, match=r"one for each step, \[3, 5\]"):
        layer(x, resets=torch.zeros(B, T, 4, 3, dtype=torch.bool))
    with pytest.raises(ShapeError, match=r"expected shape \[1, 2, 3, 4, 3\]"):
        layer.stream(2, (h, h))
    with pytest.raises(ConfigError, match="hidden_sizes"):
        Recurrent(ConvRNN(C, H, size=SPACE), hidden_sizes=(4, 4))


@pytest.mark.data
def test_real_video_is_predicted_better_than_by_its_last_frame(shared_data: Path) -> None:
    """Frey's face: trained on windows of the first 1,600 frames, held to the last 365, which it never saw."""
    pixels = loadmat(shared_data / "frey_faces" / "frey_rawface.mat")["ff"]
    film = torch.from_numpy(pixels.astype("float32") / 255).t().reshape(-1, 1, 28, 20)
    seen, held = film[:1600], film[1600:]
    torch.manual_seed(0)
    layer, head = Recurrent(ConvLSTM(1, 8, size=(28, 20))), nn.Conv2d(8, 1, 3, padding=1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.get_parameter("bias"))  # so that it begins by copying the last frame
    optimizer = torch.optim.Adam(itertools.chain(layer.parameters(), head.parameters()), lr=3e-3)

    def loss(clips: Tensor) -> Tensor:
        y, _ = layer(clips[:, :-1])
        return F.mse_loss(clips[:, :-1] + head(y.flatten(0, 1)).unflatten(0, y.shape[:2]), clips[:, 1:])

    for _ in range(50):
        starts = torch.randint(len(seen) - 10, (8, 1))
        optimizer.zero_grad()
        loss(seen[starts + torch.arange(11)]).backward()
        optimizer.step()
    with torch.no_grad():
        copied = F.mse_loss(held[:-1], held[1:])
        assert loss(held[None]) < 0.95 * copied
