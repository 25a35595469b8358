"""F1: torch.nn's layers, called, stored and computed alike."""

from __future__ import annotations

import copy
import inspect
import itertools
import pickle

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from tidegate import nn as tnn
from tidegate.errors import ShapeError

KINDS = ("RNN", "GRU", "LSTM")
OPTIONS = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False, "num_layers": 2},
    {"batch_first": True, "dtype": torch.float64},
]


def pairs():  # type: ignore[no-untyped-def]
    for kind, options in itertools.product(KINDS, OPTIONS):
        torch.manual_seed(0)
        theirs = getattr(torch.nn, kind)(3, 4, **options)
        torch.manual_seed(0)
        yield getattr(tnn, kind)(3, 4, **options), theirs


def test_f1_the_same_seed_draws_the_same_weights_under_the_same_names() -> None:
    for ours, theirs in pairs():
        assert list(ours.state_dict()) == list(theirs.state_dict())
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)
            assert torch.equal(getattr(ours, name), value)
        for a, b in zip(ours.all_weights, theirs.all_weights, strict=True):
            assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_f1_weights_go_both_ways_strictly() -> None:
    for ours, theirs in pairs():
        fresh_theirs, fresh_ours = copy.deepcopy(theirs), copy.deepcopy(ours)
        for fresh in (fresh_ours, fresh_theirs):
            for parameter in fresh.parameters():
                torch.nn.init.zeros_(parameter)
        fresh_ours.load_state_dict(theirs.state_dict())
        fresh_theirs.load_state_dict(ours.state_dict())
        x = torch.randn(5, 2, 3, dtype=theirs.weight_hh_l0.dtype)
        expected = theirs(x)[0]
        assert torch.equal(fresh_theirs(x)[0], expected)
        torch.testing.assert_close(fresh_ours(x)[0], expected)


def test_f1_inside_a_model() -> None:
    ours = torch.nn.Sequential(torch.nn.Linear(3, 3), tnn.LSTM(3, 4, 2, norm="layer"))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LSTM(3, 4, 2))
    missing = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert all(".norms." in name for name in missing.missing_keys)
    assert not missing.unexpected_keys
    assert torch.equal(ours.state_dict()["1.weight_hh_l1"], theirs.state_dict()["1.weight_hh_l1"])
    again = copy.deepcopy(ours)
    again.load_state_dict(ours.state_dict())
    with pytest.raises(RuntimeError, match="size mismatch"):
        tnn.LSTM(3, 4).load_state_dict(torch.nn.LSTM(3, 5).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected"):
        tnn.LSTM(3, 4).load_state_dict(torch.nn.LSTM(3, 4, 2).state_dict())


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_f1_projection() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 6, 2, proj_size=2, bidirectional=True)
    torch.manual_seed(0)
    ours = tnn.LSTM(3, 6, 2, proj_size=2, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert torch.equal(ours.weight_hr_l1_reverse, theirs.weight_hr_l1_reverse)
    x = torch.randn(5, 2, 3)
    y, (h, c) = ours(x)
    expected, (eh, ec) = theirs(x)
    torch.testing.assert_close((y, h, c), (expected, eh, ec))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_f1_one_sequence_without_a_batch(kind: str, batch_first: bool) -> None:
    theirs = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True, batch_first=batch_first)
    ours = getattr(tnn, kind)(3, 4, 2, bidirectional=True, batch_first=batch_first)
    ours.load_state_dict(theirs.state_dict())
    x, h = torch.randn(5, 3), torch.randn(4, 4)
    hx = (h, h + 1) if kind == "LSTM" else h
    torch.testing.assert_close(ours(x, hx), theirs(x, hx))
    torch.testing.assert_close(ours(input=x, hx=None), theirs(input=x, hx=None))
    with pytest.raises(ShapeError, match="a batch axis beside lengths"):
        ours(x, lengths=torch.tensor([5]))
    wrong = (h[:, :3], h) if kind == "LSTM" else h[:, :3]
    with pytest.raises(
        ShapeError, match=r"the state h of one sequence; expected shape \[4, 4\]; got a tensor of shape \[4, 3\]"
    ):
        ours(x, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_f1_packed_sequences(kind: str) -> None:
    theirs, ours = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True), getattr(tnn, kind)(3, 4, 2, bidirectional=True)
    ours.load_state_dict(theirs.state_dict())
    packed = pack_padded_sequence(torch.randn(6, 4, 3), torch.tensor([2, 6, 3, 6]), enforce_sorted=False)
    torch.testing.assert_close(tuple(ours(packed)[0]), tuple(theirs(packed)[0]))
    torch.testing.assert_close(ours(packed)[1], theirs(packed)[1])


def test_f1_positional_arguments_stand_in_torchs_order() -> None:
    lstm = tnn.LSTM(3, 4, 2, False, True, 0.25, True, 2, "cpu", torch.float64)
    rnn = tnn.RNN(3, 4, 2, "relu", False, True, 0.25, True, "cpu", torch.float64)
    gru = tnn.GRU(3, 4, 2, False, True, 0.25, True, "cpu", torch.float64)
    for layer in (lstm, rnn, gru):
        seen = (layer.num_layers, layer.bias, layer.batch_first, layer.dropout, layer.bidirectional)
        assert seen == (2, False, True, 0.25, True)
        assert layer.weight_ih_l0.dtype == torch.float64
    assert lstm.proj_size == 2
    assert rnn.nonlinearity == "relu"
    torchs = list(inspect.signature(torch.nn.RNNBase.__init__).parameters)
    assert [p for p in inspect.signature(tnn.LSTM.__init__).parameters if p in torchs] == [
        p for p in torchs if p != "mode"
    ]


def test_f1_attributes_copies_and_pickles() -> None:
    layer = tnn.GRU(3, 4, 2, bidirectional=True)
    layer.flatten_parameters()
    assert layer.weight_hh_l1_reverse is layer.cells[3].weight_hh
    layer.bias_ih_l0 = torch.nn.Parameter(torch.zeros(12))
    assert not layer.cells[0].bias_ih.any()
    for wrong in ("weight_hh_l2", "weight_hr_l0", "nothing"):
        assert not hasattr(layer, wrong)
    assert not hasattr(tnn.GRU(3, 4, 2), "weight_hh_l0_reverse")
    x = torch.randn(5, 2, 3)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], layer(x)[0])
        assert list(other.state_dict()) == list(layer.state_dict())
        assert other.weight_hh_l0 is not layer.weight_hh_l0


def test_f1_and_more_than_torchs() -> None:
    layer = tnn.LSTM(3, 4, 2, batch_first=True, residual=True, norm="layer", init="forget", backend="reference")
    x = torch.randn(2, 5, 3)
    y, _ = layer(x, lengths=torch.tensor([5, 2]))
    assert y.shape == (2, 5, 4)
    assert not y[1, 2:].any()
    assert torch.equal(layer.bias_ih_l1[4:8], torch.ones(4))


@pytest.mark.parametrize("kind", [tnn.LSTM, tnn.GRU, tnn.RNN])
def test_what_cells_take_is_passed_on(kind: type) -> None:
    layer = kind(4, 6, 2, batch_first=True, layer_norm=True, zoneout=0.1, dropconnect=0.2, init="orthogonal")
    assert all(cell.layer_norm and cell.noise.zoneout[0] == 0.1 and cell.noise.weights == 0.2 for cell in layer.cells)
    assert "norm_hh_l1" in dict(layer.named_parameters())
    x = torch.randn(3, 5, 4)
    assert layer(x, lengths=[5, 2, 3])[0].shape == (3, 5, 6)
