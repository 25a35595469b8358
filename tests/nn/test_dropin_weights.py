"""F1: the weights are the layer's own, under torch.nn's names: whatever replaces one is what the layer runs with."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate import nn as tnn
from tidegate.errors import ConfigError
from tidegate.nn import Recurrent

KINDS = ("RNN", "GRU", "LSTM")
X = torch.randn(5, 2, 3)


def pair(kind: str, *args: object, **options: object) -> tuple[nn.Module, nn.Module]:
    ours, theirs = getattr(tnn, kind)(3, 4, *args, **options), getattr(nn, kind)(3, 4, *args, **options)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def same(ours: nn.Module, theirs: nn.Module) -> None:
    torch.testing.assert_close(ours(X), theirs(X))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_named_as_torchs_and_in_its_order(kind: str) -> None:
    extra = [{"proj_size": 2}] if kind == "LSTM" else []
    for options in ({}, {"bias": False, "num_layers": 2}, {"num_layers": 2, "bidirectional": True}, *extra):
        ours, theirs = pair(kind, **options)
        assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        for other in (copy.deepcopy(ours), copy.deepcopy(ours).double().float()):
            assert [n for n, _ in other.named_parameters()] == [n for n, _ in theirs.named_parameters()]
            same(other, theirs)
            assert other.cells[0].weight_hh is other.weight_hh_l0


def test_a_checkpoint_of_another_shape_is_told_in_torchs_words() -> None:
    bidirectional = nn.LSTM(3, 4, 2, bidirectional=True).state_dict()
    told = tnn.LSTM(3, 4, 4).load_state_dict({k: v for k, v in bidirectional.items() if "l1" not in k}, strict=False)
    assert told.unexpected_keys == [f"{w}_l0_reverse" for w in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert "weight_hh_l1" in told.missing_keys
    assert not [key for key in told.missing_keys if "cells" in key or "_l0" in key]
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "weight_ih_l0_reverse"'):
        tnn.LSTM(3, 4, 2).load_state_dict(nn.LSTM(3, 4, bidirectional=True).state_dict())
    with pytest.raises(RuntimeError, match=r'Missing key.*"bias_ih_l0"'):
        tnn.LSTM(3, 4).load_state_dict(nn.LSTM(3, 4, bias=False).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call_pruning_weight_norm_and_sharing(kind: str) -> None:
    ours, theirs = pair(kind, 2)
    other = {name: torch.randn_like(value) for name, value in theirs.state_dict().items()}
    torch.testing.assert_close(
        torch.func.functional_call(ours, other, (X,)), torch.func.functional_call(theirs, other, (X,))
    )
    same(ours, theirs)
    for each in (ours, theirs):
        prune.l1_unstructured(each, "weight_hh_l0", 0.5)
        parametrizations.weight_norm(each, "weight_hh_l1")
    theirs._flat_weights = [getattr(theirs, name) for name in theirs._flat_weights_names]
    assert float((ours.weight_hh_l0 == 0).float().mean()) >= 0.5
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    same(ours, theirs)
    ours(X)[0].sum().backward()
    assert ours.parametrizations.weight_hh_l1.original0.grad.any()
    assert not ours.weight_hh_l0_orig.grad[ours.weight_hh_l0_mask == 0].any()


def test_shared_weights_are_one_and_optimizers_move_them() -> None:
    a, b = tnn.GRU(3, 4), tnn.GRU(3, 4)
    b.weight_hh_l0 = a.weight_hh_l0
    assert len({id(p) for p in [*a.parameters(), *b.parameters()]}) == 7
    before = b(X)[0]
    optimizer = torch.optim.SGD(a.parameters(), 0.5)
    a(X)[0].square().sum().backward()
    optimizer.step()
    assert not torch.equal(b(X)[0], before)


@pytest.mark.parametrize("kind", KINDS)
def test_reset_parameters_draws_as_torch_does(kind: str) -> None:
    ours, theirs = pair(kind, 2, bidirectional=True)
    torch.manual_seed(3)
    ours.reset_parameters()
    torch.manual_seed(3)
    theirs.reset_parameters()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(("kind", "both"), list(itertools.product(KINDS, (False, True))))
def test_dropout_masks_are_torchs_at_the_same_seed(kind: str, both: bool) -> None:
    ours, theirs = pair(kind, 3, dropout=0.5, bidirectional=both)
    lengths = torch.tensor([3, 5])
    packed = pack_padded_sequence(X, lengths, enforce_sorted=False)
    results = []
    for run in (
        lambda: (theirs(X)[0], pad_packed_sequence(theirs(packed)[0])[0]),
        lambda: (ours(X)[0], ours(X, lengths=lengths)[0]),
    ):
        torch.manual_seed(7)
        results.append(run())
    torch.testing.assert_close(results[1], results[0])


def test_dropout_without_a_place_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater than 1") as told:
        tnn.LSTM(4, 4, num_layers=1, dropout=0.5)
    assert told[0].filename == __file__


def test_an_activation_of_the_users_own() -> None:
    layer = tnn.RNN(3, 4, nonlinearity=torch.sin)
    assert layer.mode == "RNN_SIN"
    h = torch.zeros(2, 4)
    for x in X:
        h = torch.sin(x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0)
    torch.testing.assert_close(layer(X)[1][0], h)
    learned = tnn.RNN(3, 4, 2, nonlinearity=nn.PReLU())
    assert [n for n, _ in learned.named_parameters()][-2:] == ["cells.0.f.weight", "cells.1.f.weight"]
    learned(X)[0].sum().backward()


def test_torchs_name_for_layers_is_named() -> None:
    with pytest.raises(ConfigError, match=r"building LSTM; expected num_layers=, torch.nn's name; got layers=2"):
        tnn.LSTM(3, 4, layers=2)


def test_a_cell_of_a_layer_is_not_another_layers() -> None:
    with pytest.raises(ConfigError, match="weights that another layer owns"):
        Recurrent(tnn.LSTM(3, 4).cells[0])


class Scaled(torch.nn.Module):
    """A parametrisation that something outside of the layer changes."""

    scale = 1.0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.scale


class Normed(torch.nn.Module):
    """A parametrisation of which a part has no gradient."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            norm = weight.norm()
        return weight / norm


def test_parametrised_weights_are_made_anew_at_every_call() -> None:
    layer, scaled = tnn.GRU(3, 4, batch_first=True), Scaled()
    parametrize.register_parametrization(layer, "weight_hh_l0", scaled)
    x = torch.randn(2, 5, 3)
    before = layer(x)[0]
    scaled.scale = 0.0
    after = layer(x)[0]
    assert not torch.equal(before, after)
    parametrize.remove_parametrizations(layer, "weight_hh_l0")
    torch.testing.assert_close(layer(x)[0], after)


@pytest.mark.parametrize("first", ["run before", "not run"])
def test_parametrisations_have_torchs_gradients(first: str) -> None:
    torch.manual_seed(0)
    ours, theirs = tnn.GRU(3, 4, batch_first=True), torch.nn.GRU(3, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 3)
    if first == "run before":
        ours(x)
    for layer in (ours, theirs):
        parametrize.register_parametrization(layer, "weight_hh_l0", Normed())
        layer(x)[0].square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_spectral_norm_trains() -> None:
    torch.manual_seed(0)
    ours, theirs = tnn.LSTM(3, 4, batch_first=True), torch.nn.LSTM(3, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    for layer in (ours, theirs):
        torch.manual_seed(1)
        parametrizations.spectral_norm(layer, "weight_hh_l0", n_power_iterations=50)
    x = torch.randn(2, 5, 3)
    for layer in (ours, theirs):
        layer(x)[0].square().sum().backward()
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    found, expected = (layer.parametrizations.weight_hh_l0.original.grad for layer in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
