"""A16: recurrent layers among others, lengths respected by all."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate import nn as tidegate_nn
from tidegate.cells import GRU, LSTM
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Adapt, BatchNorm, Convolution, MultiheadAttention, Recurrent, Stack, TransformerBlock

LENGTHS = torch.tensor([7, 3, 0, 1])


def data(width: int = 8) -> Tensor:
    return torch.randn(4, 7, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_block_is_torchs(causal: bool) -> None:
    torch.manual_seed(0)
    ours = TransformerBlock(8, 2, hidden_size=12, causal=causal).double()
    theirs = nn.TransformerEncoderLayer(
        8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    theirs.self_attn.load_state_dict(ours.attention.state_dict())
    pairs = ((theirs.linear1, ours.inner), (theirs.linear2, ours.outer))
    norms = ((theirs.norm1, ours.norms[0]), (theirs.norm2, ours.norms[1]))
    for their, our in (*pairs, *norms):
        their.load_state_dict(our.state_dict())
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    x = data()
    y = ours(x, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        if length:
            alone = theirs(x[row : row + 1, :length], src_mask=None if mask is None else mask[:length, :length])
            torch.testing.assert_close(y[row, :length], alone[0])
        assert (y[row, length:] == 0).all()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize(("width", "dilation", "causal"), [(3, 1, False), (4, 2, False), (3, 2, True), (1, 1, True)])
def test_a_convolution_sees_its_window(width: int, dilation: int, causal: bool, mode: str) -> None:
    torch.manual_seed(0)
    layer = Convolution(8, 5, width, dilation=dilation, causal=causal, padding_mode=mode).double()
    x = data()
    y = layer(x, lengths=LENGTHS)
    before = dilation * (width - 1) if causal else dilation * (width - 1) // 2
    weight, bias = layer.convolution.weight, layer.convolution.bias
    for row, length in enumerate(LENGTHS.tolist()):
        for t in range(length):
            total = bias.clone()
            for k in range(width):
                at = t + k * dilation - before
                at = at % length if mode == "circular" else at
                if 0 <= at < length:
                    total = total + weight[:, :, k] @ x[row, at]
            torch.testing.assert_close(y[row, t], F.relu(total))
        assert (y[row, length:] == 0).all()


def test_on_circular_rows_a_shift_of_the_input_is_a_shift_of_the_output() -> None:
    layer = Convolution(8, 5, 5, padding_mode="circular").double()
    x, lengths = data(), torch.tensor([7, 3, 2, 1])  # rows that the window goes round once, twice and more
    turned = x.clone()
    for row, length in enumerate(lengths):
        turned[row, :length] = x[row, :length].roll(1, 0)
        turned[row, length:] = float("nan")
    y, moved = layer(x, lengths=lengths), layer(turned, lengths=lengths)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(moved[row, :length], y[row, :length].roll(1, 0))
        assert (moved[row, length:] == 0).all()
    torch.testing.assert_close(layer(x)[0], y[0])


def stack() -> Stack:
    torch.manual_seed(0)
    return Stack(
        Convolution(8, 8),
        Recurrent(LSTM(8, 8), residual=True),
        nn.LayerNorm(8),
        TransformerBlock(8, 2, causal=True),
        Stack(nn.Linear(8, 6), Recurrent(GRU(6, 6), bidirectional=True)),
    ).double()


def test_padding_changes_nothing_in_a_stack() -> None:
    model, results = stack(), []
    for filled in (0.0, float("nan")):
        x = data()
        for row, length in enumerate(LENGTHS):
            x[row, length:] = filled
        x.requires_grad_()
        y, state = model(x, lengths=LENGTHS)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *model.parameters()])])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results, strict=True))
    y = results[0][0]
    assert (y[1, 3:] == 0).all()
    torch.testing.assert_close(model(data()[1:2, :3])[0][0], y[1, :3])
    assert [type(each) for each in state] == [type(None), tuple, type(None), type(None), tuple]
    assert state[1][0].shape == (1, 4, 8)


def test_layers_that_give_pairs_and_compiled_ones_are_told_lengths() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(8, 2).double()
    x = data()
    expected = Stack(block)(x, lengths=LENGTHS)[0]
    torch.testing.assert_close(Stack(torch.compile(block, backend="eager"))(x, lengths=LENGTHS)[0], expected)
    attention = MultiheadAttention(8, 2).double()
    torch.testing.assert_close(Stack(attention, nn.Identity())(x, lengths=LENGTHS)[0], attention(x, lengths=LENGTHS)[0])
    assert Stack(Convolution(8, 4))(torch.zeros(2, 0, 8))[0].shape == (2, 0, 4)


class Inside(nn.Module):
    """A layer of one's own that runs torch's LSTM and knows no lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)[0]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(nn.Linear(8, 8), Recurrent(GRU(8, 8))),
        nn.Sequential(nn.Linear(8, 8), nn.MaxPool1d(2)),
        nn.TransformerEncoderLayer(8, 2, batch_first=True),
        nn.Softmax(1),
        nn.LayerNorm((7, 8)),
        nn.Flatten(),
        nn.PReLU(7),
        nn.InstanceNorm1d(7),
        Inside(),
        Adapt(8),
        nn.GRU(8, 8, batch_first=True),
        tidegate_nn.GRU(8, 8),
        nn.Conv1d(8, 8, 3),
        nn.BatchNorm1d(7),
    ],
)
def test_layers_that_would_mix_steps_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ConfigError, match="building a stack, layer 0"):
        Stack(layer)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.RMSNorm(6)),
        nn.Softmax(-1),
        nn.PReLU(),
        nn.GLU(),
        nn.ModuleList([nn.Linear(8, 8)]).append(nn.Tanh())[0],
    ],
)
def test_layers_that_treat_every_step_by_itself_are_taken(layer: nn.Module) -> None:
    stack, x = Stack(layer.double()), data()
    whole = stack(x, lengths=LENGTHS)[0]
    torch.testing.assert_close(stack(x[1:2, :3])[0], whole[1:2, :3])


def test_a_state_is_carried() -> None:
    torch.manual_seed(0)
    model = Stack(nn.Linear(8, 4), Recurrent(GRU(4, 4)), nn.Tanh(), Recurrent(LSTM(4, 4))).double()
    x = data()
    whole, last = model(x)
    first, state = model(x[:, :4])
    second, end = model(x[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end[3], last[3])


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ConfigError, match="a size that is a multiple of heads; got 10 and 4"):
        TransformerBlock(10, 4)
    with pytest.raises(ShapeError, match=r"x of shape \[B, T, 8\]; got shape \[2, 3, 5\]"):
        TransformerBlock(8)(torch.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match=r"running a convolution; expected x of shape \[B, T, 8\]"):
        Convolution(8, 4)(torch.zeros(2, 8))
    with pytest.raises(ShapeError, match="a state of 5 entries, one for each layer; got 2"):
        stack()(data(), (None, None))


@pytest.mark.parametrize("layer", [TransformerBlock(8), Convolution(8, 4), Adapt(8), Stack(nn.Linear(8, 8))])
def test_what_is_no_tensor_is_told(layer: nn.Module) -> None:
    arguments = (4,) if isinstance(layer, Adapt) else ()
    with pytest.raises(ShapeError, match=r"got list"):
        layer([[1.0] * 8], *arguments)
    if not isinstance(layer, Stack):
        with pytest.raises(ShapeError, match=r"got dtype torch\.int64"):
            layer(torch.zeros(2, 3, 8).long(), *arguments)


def test_layers_and_states_that_are_none_are_told() -> None:
    with pytest.raises(ConfigError, match=r"layer 1; expected a torch\.nn\.Module; got 3"):
        Stack(nn.Linear(8, 8), 3)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"running layer 1 of a stack, running a recurrent layer; .* \[B, T, 5\]; got"):
        Stack(Recurrent(GRU(3, 4)), Recurrent(GRU(5, 4)))(torch.randn(2, 6, 3))
    with pytest.raises(ShapeError, match="a state of 1 entries, one for each layer; got float"):
        Stack(nn.Linear(8, 8))(torch.zeros(2, 3, 8), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hidden_size to be a positive integer; got -1"):
        TransformerBlock(8, hidden_size=-1)


def test_batch_norm_in_a_stack_sees_real_steps_alone() -> None:
    torch.manual_seed(0)
    norm, x = BatchNorm(8).double(), data()
    real = torch.arange(7) < LENGTHS[:, None]
    x = x.masked_fill(~real[..., None], float("nan"))
    y, _ = Stack(nn.Tanh(), norm)(x, lengths=LENGTHS)
    theirs = nn.BatchNorm1d(8).double()
    torch.testing.assert_close(y[real], theirs(x[real].tanh()))
    torch.testing.assert_close(norm.running_var, theirs.running_var)
    assert (y[~real] == 0).all()
    torch.testing.assert_close(norm.eval()(x, LENGTHS.tolist())[real], theirs.eval()(x[real]))
    with pytest.raises(ShapeError, match=r"normalising a batch; expected x of shape \[B, T, 8\]; got shape \[4, 8\]"):
        norm(torch.zeros(4, 8))


@pytest.mark.parametrize("embedding", [nn.Embedding(9, 8), tidegate_nn.Embedding(9, 8)])
def test_tokens_go_through_an_embedding_first(embedding: nn.Module) -> None:
    stack, tokens = Stack(embedding, Recurrent(GRU(8, 4))), torch.randint(0, 9, (4, 7))
    whole = stack(tokens, lengths=LENGTHS)[0]
    row = 1
    length = int(LENGTHS[row])
    torch.testing.assert_close(stack(tokens[row : row + 1, :length])[0][0], whole[row, :length])
    assert (whole[row, length:] == 0).all()
