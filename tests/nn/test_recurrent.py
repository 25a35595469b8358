"""A9: stacks, directions, sizes, connections, lengths, packed sequences, streams."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate.cells import CELLS, GRU, LSTM, Elman
from tidegate.compile.select import unroll
from tidegate.errors import BackendError, ConfigError, ShapeError
from tidegate.nn import Recurrent

X = torch.randn(3, 6, 5)
LENGTHS = torch.tensor([4, 0, 6])
PADDING = torch.arange(6) >= LENGTHS[:, None]
CONNECTIONS = (None, "residual", "highway", "dense", "skip")
NORMS = (None, "batch", "layer")
ALONE = [name for name, cell in CELLS.items() if not cell.inputs]  # the cells that read nothing beside x
FIRST = ("lstm", "gru")  # two states and one: these in every combination, the others in a few
FEW = ((None, None, True), ("residual", "layer", True))


def tensors(state: object) -> list[Tensor]:
    return [state] if isinstance(state, Tensor) else [t for each in state for t in tensors(each)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cell", "connection", "norm", "both"),
    [
        case
        for case in itertools.product(ALONE, CONNECTIONS, NORMS, (False, True))
        if case[0] in FIRST or case[1:] in FEW
    ],
)
def test_padding_changes_nothing_in_any_combination(cell: str, connection: str, norm: str, both: bool) -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS[cell](5, 4), layers=2, connection=connection, norm=norm, bidirectional=both).double()
    begin, seen = copy.deepcopy(layer.state_dict()), []
    for content, extra in ((0.0, 0), (float("nan"), 0), (float("inf"), 3)):
        layer.load_state_dict(begin)
        layer.zero_grad()
        x = torch.nn.functional.pad(
            X.double().masked_fill(PADDING[..., None], content), (0, 0, 0, extra), value=content
        )
        y, state = layer(x.requires_grad_(), lengths=LENGTHS)
        assert y.shape == (3, 6 + extra, layer.output_size)
        assert not y[:, :6][PADDING].any()
        assert not y[:, 6:].any()
        (y.sum() + sum(t.square().sum() for t in tensors(state))).backward()
        assert x.grad is not None
        buffers = [buffer.clone() for buffer in layer.buffers()]
        seen.append([y[:, :6], *tensors(state), x.grad[:, :6], *(p.grad for p in layer.parameters()), *buffers])
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    for a, b in zip(seen[0], seen[2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("cell", "connection", "norm"),
    [case for case in itertools.product(ALONE, CONNECTIONS, NORMS) if case[0] in FIRST or (*case[1:], True) in FEW],
)
def test_a_stream_of_steps_and_a_carried_state_equal_the_whole(cell: str, connection: str, norm: str) -> None:
    torch.manual_seed(0)
    layer = Recurrent(CELLS[cell](5, 4), layers=3, connection=connection, norm=norm, dropout=0.5)
    layer(X)
    layer.eval()
    whole, end = layer(X)
    outputs, state = [], None
    for x_t in X.unbind(1):
        y, state = layer.step(x_t, state)
        outputs.append(y)
    torch.testing.assert_close(torch.stack(outputs, 1), whole)
    torch.testing.assert_close(state, end)
    first, middle = layer(X[:, :2])
    second, last = layer(X[:, 2:], middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, end)


@pytest.mark.parametrize("cell", ALONE)
def test_bidirectional_is_two_cells_the_second_on_the_reversed_row(cell: str) -> None:
    layer = Recurrent(CELLS[cell](5, 4), bidirectional=True)
    y, state = layer(X, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        real = X[row : row + 1, :length]
        forward, end = unroll(layer.cells[0], real)
        backward, start = unroll(layer.cells[1], real.flip(1))
        torch.testing.assert_close(y[row : row + 1, :length], torch.cat([forward, backward.flip(1)], 2))
        for whole, a, b in zip(tensors(state), tensors(end), tensors(start), strict=True):
            torch.testing.assert_close(whole[:, row], torch.cat([a, b]))


def test_resets_break_both_directions_at_the_same_place() -> None:
    layer = Recurrent(GRU(5, 4), layers=2, bidirectional=True)
    lengths = torch.tensor([6, 5, 2])
    resets = torch.zeros(3, 6, dtype=torch.bool)
    resets[:, 2] = True
    resets[1, 5] = True  # beyond its length, so without effect
    y, _ = layer(X, lengths=lengths, resets=resets)
    first, _ = layer(X[:, :2])
    second, _ = layer(X[:, 2:], lengths=lengths - 2)
    torch.testing.assert_close(y, torch.cat([first, second], 1))
    state = torch.randn(4, 3, 4)
    unread = resets & ~torch.arange(6).ge(lengths[:, None])
    assert torch.equal(
        layer(X, state, lengths=lengths, resets=resets)[0], layer(X, state, lengths=lengths, resets=unread)[0]
    )
    turned, _ = Recurrent(layer.cells[0], batch_first=False)(X.transpose(0, 1), resets=resets.T)
    straight, _ = Recurrent(layer.cells[0])(X, resets=resets)
    torch.testing.assert_close(turned.transpose(0, 1), straight)


@pytest.mark.parametrize("both", [False, True])
def test_unequal_sizes_keep_a_state_for_each_cell(both: bool) -> None:
    layer = Recurrent(LSTM(5, 4), hidden_sizes=[4, 7, 3], bidirectional=both)
    assert layer.output_size == 3 * (1 + both)
    assert [c.input_size for c in layer.cells][:: 1 + both] == [5, 4 * (1 + both), 7 * (1 + both)]
    whole, end = layer(X)
    assert [tuple(h.shape) for h, _ in end][:: 1 + both] == [(3, 4), (3, 7), (3, 3)]
    again, _ = layer(X, tuple((torch.zeros_like(h), torch.zeros_like(c)) for h, c in end))
    assert torch.equal(whole, again)
    changed, _ = layer(X, end)
    assert not torch.allclose(whole, changed)


def test_packed_in_packed_out() -> None:
    layer = Recurrent(LSTM(5, 4), layers=2, bidirectional=True)
    lengths = torch.tensor([2, 6, 2])
    packed = pack_padded_sequence(X, lengths, batch_first=True, enforce_sorted=False)
    y, state = layer(packed)
    assert torch.equal(y.batch_sizes, packed.batch_sizes)
    assert torch.equal(y.sorted_indices, packed.sorted_indices)
    expected, expected_state = layer(X, lengths=lengths)
    assert torch.equal(pad_packed_sequence(y, batch_first=True)[0], expected)
    torch.testing.assert_close(state, expected_state)
    in_order = pack_padded_sequence(X, torch.tensor([6, 3, 3]), batch_first=True)
    y, _ = layer(in_order)
    assert y.sorted_indices is None
    assert torch.equal(pad_packed_sequence(y, batch_first=True)[0], layer(X, lengths=torch.tensor([6, 3, 3]))[0])


def test_further_layers_have_their_own_weights_and_the_cells_options() -> None:
    cell = Elman(5, 4, activation="relu", init="identity", output_size=3)
    layer = Recurrent(cell, layers=3)
    assert layer.cells[0] is cell
    assert [c.input_size for c in layer.cells] == [5, 3, 3]
    assert all(c.activation == "relu" for c in layer.cells)
    torch.testing.assert_close(layer.cells[2].weight_hh.detach(), torch.eye(4))
    assert not torch.equal(layer.cells[1].weight_ih, layer.cells[2].weight_ih)


def test_dropout_is_between_layers_and_only_while_training() -> None:
    torch.manual_seed(0)
    layer = Recurrent(GRU(5, 64), layers=2, dropout=0.5)
    twice = [layer(X)[0] for _ in range(2)]
    assert not torch.equal(*twice)
    assert (twice[0] != 0).all()
    single = Recurrent(GRU(5, 64), dropout=0.5)
    assert torch.equal(single(X)[0], single(X)[0])
    layer.eval()
    assert torch.equal(layer(X)[0], layer(X)[0])
    all_dropped = Recurrent(layer.cells[0], layers=2, dropout=1.0)
    y, _ = all_dropped(X)
    expected, _ = unroll(all_dropped.cells[1], torch.zeros(3, 6, 64))
    torch.testing.assert_close(y, expected)


def test_moves_copies_and_saves() -> None:
    layer = Recurrent(LSTM(5, 4, dtype=torch.float64), layers=2, connection="highway", norm="batch")
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    layer(X.double())
    layer.eval()
    y, _ = layer(X.double())
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(X.double())[0], y)
    fresh = Recurrent(LSTM(5, 4, dtype=torch.float64), layers=2, connection="highway", norm="batch").eval()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(X.double())[0], y)


@pytest.mark.parametrize(("batch", "steps"), [(0, 4), (2, 0)])
def test_nothing_in_nothing_out(batch: int, steps: int) -> None:
    for connection, norm, both in itertools.product(CONNECTIONS, NORMS, (False, True)):
        layer = Recurrent(LSTM(5, 4), layers=2, bidirectional=both, connection=connection, norm=norm)
        for lengths in (None, torch.zeros(batch, dtype=torch.int64)):
            y, (h, c) = layer(torch.randn(batch, steps, 5), lengths=lengths)
            assert y.shape == (batch, steps, layer.output_size)
            assert h.shape == c.shape == (2 * (1 + both), batch, 4)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ConfigError, {"layers": 0}, r"layers to be a positive integer; got 0 \(int\); try: layers=2"),
        (ConfigError, {"bidirectional": 2}, "bidirectional to be True or False; got 2"),
        (ConfigError, {"residual": "yes"}, "residual to be True or False; got 'yes'"),
        (ConfigError, {"recompute": None}, "recompute to be True or False; got None"),
        (ConfigError, {"dropout": 1.5}, "dropout to be a probability, 0 to 1; got 1.5"),
        (ConfigError, {"residual": True, "connection": "skip"}, "one kind of connection"),
        (ConfigError, {"connection": "residul"}, "did you mean 'residual'"),
        (ConfigError, {"norm": "bach"}, "did you mean 'batch'"),
        (ConfigError, {"backend": "atem"}, "did you mean 'aten'"),
        (ConfigError, {"hidden_sizes": [8, 4]}, "start with the cell's own, 4"),
        (ConfigError, {"hidden_sizes": [4, 4], "layers": 3}, "for each of 3 layers"),
        (ConfigError, {"hidden_sizes": []}, "got \\[\\]"),
    ],
)
def test_options_that_cannot_be(error: type[Exception], options: dict[str, object], message: str) -> None:
    with pytest.raises(error, match=message):
        Recurrent(GRU(5, 4), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a cell, built"):
        Recurrent(GRU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r(X[..., :4]), r"input of shape \[B, T, 5\]; got shape \[3, 6, 4\]; try: "),
        (lambda r: r(X[0]), r"input of shape \[B, T, 5\]; got shape \[6, 5\]"),
        (lambda r: r(X.double()), "dtype torch.float32, the weights'; got dtype torch.float64; try: x.to"),
        (lambda r: r(X.to("meta")), "input on cpu, where the weights are; got a tensor on meta"),
        (
            lambda r: r(X.to_sparse()),
            r"a dense tensor of shape \[B, T, 5\]; got a tensor of layout torch.sparse_coo; try: x.to_d",
        ),
        (lambda r: r(torch.nested.nested_tensor([*X], layout=torch.jagged)), "a dense tensor .*; got a nested tensor"),
        (lambda r: r(torch.nested.nested_tensor([*X])), "a dense tensor .*; got a nested tensor; try: x.to_padded"),
        (lambda r: r(X, torch.zeros(1, 3, 4)), r"the state h; expected shape \[2, 3, 4\]; got a tensor of shape"),
        (lambda r: r(X, (torch.zeros(2, 3, 4),) * 2), "the state; expected a tensor; got a tuple of 2"),
        (lambda r: r(X, torch.zeros(2, 3, 4).double()), "expected dtype torch.float32, the input's"),
        (lambda r: r(X, lengths=torch.tensor([1, 2])), r"shape \[3\]; got shape \[2\]"),
        (lambda r: r(X, lengths=torch.tensor([1, 2, 7])), "7 in row 2"),
        (lambda r: r(X, lengths=torch.tensor([1.0, 2, 3])), "an integer tensor"),
        (lambda r: r(X, resets=torch.zeros(3, 5, dtype=torch.bool)), r"one for each step, \[3, 6\]"),
        (lambda r: r(X, resets=torch.zeros(3, 6)), "dtype torch.float32"),
        (lambda r: r.step(X), r"input of shape \[B, 5\]"),
        (lambda r: r(pack_padded_sequence(X, [6, 6, 6], True), lengths=LENGTHS), "it has its own lengths"),
    ],
)
def test_input_that_does_not_fit(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match=message):
        call(Recurrent(GRU(5, 4), layers=2))


def test_states_of_unequal_sizes_are_checked_one_by_one() -> None:
    layer = Recurrent(LSTM(5, 4), hidden_sizes=[4, 2])
    zeros = torch.zeros(3, 4)
    with pytest.raises(ShapeError, match=r"the state h of cell 1; expected shape \[3, 2\]"):
        layer(X, ((zeros, zeros), (zeros, zeros)))
    with pytest.raises(ShapeError, match="a tuple of 2 states, one for each cell"):
        layer(X, (zeros,))
    with pytest.raises(ShapeError, match="the state of cell 0; expected a tuple"):
        layer(X, (zeros, zeros))


def test_what_a_layer_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="a layer that runs forward only; got bidirectional=True"):
        Recurrent(GRU(5, 4), bidirectional=True).step(X[:, 0])
    with pytest.raises(BackendError, match="no kernel for GRUMerge"):
        Recurrent(CELLS["gru_merge"](5, 4), backend="aten")(X)


def test_lengths_may_be_a_list_or_an_array() -> None:
    layer = Recurrent(LSTM(5, 4), bidirectional=True)
    expected = layer(X, lengths=LENGTHS)[0]
    for given in (LENGTHS.tolist(), tuple(LENGTHS.tolist()), LENGTHS.numpy(), LENGTHS.int()):
        assert torch.equal(layer(X, lengths=given)[0], expected)
    assert layer(X[:0], lengths=[])[0].shape == (0, 6, 8)
    with pytest.raises(ShapeError, match=r"reading lengths=; expected a tensor, an array or numbers; got \['a'"):
        layer(X, lengths=["a", "b", "c"])


def test_output_is_contiguous_in_either_layout() -> None:
    for both, given in itertools.product((False, True), (None, LENGTHS)):
        for options in ({}, {"norm": "layer"}, {"backend": "reference"}):
            layer = Recurrent(LSTM(5, 4), bidirectional=both, batch_first=False, **options)
            y, _ = layer(X.transpose(0, 1), lengths=given)
            assert y.view(6 * 3, -1).shape == (18, 4 + 4 * both)


def test_resets_are_checked_in_the_layout_they_came_in() -> None:
    layer = Recurrent(GRU(5, 4), batch_first=False)
    for wrong in (torch.zeros(6, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)):
        with pytest.raises(ShapeError, match=r"reading resets=; expected booleans, one for each step, \[6, 3\]"):
            layer(X.transpose(0, 1), resets=wrong)


@pytest.mark.parametrize("connection", CONNECTIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_reset_parameters_draws_everything_as_it_was_built(connection: str, norm: str) -> None:
    def build() -> Recurrent:
        torch.manual_seed(0)
        return Recurrent(GRU(5, 4), layers=2, connection=connection, norm=norm)

    layer, fresh = build(), build()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(7)
    layer.reset_parameters()
    assert not any((p == 7).any() for p in layer.parameters())
    if layer.norms is not None:
        for name, value in fresh.norms.state_dict().items():
            assert torch.equal(layer.norms.state_dict()[name], value)
    if connection == "highway":
        assert all(torch.equal(gate.bias, torch.full((4,), -1.0)) for gate in layer.connection.gates)


def test_a_layer_moves_only_what_it_builds() -> None:
    cell = GRU(5, 4)
    cell.register_buffer("clock", torch.arange(3, dtype=torch.float64))
    assert Recurrent(cell, norm="layer").cells[0].clock.dtype == torch.float64
    wide = Recurrent(GRU(5, 4, dtype=torch.float64), connection="highway", norm="layer")
    assert {p.dtype for p in wide.parameters()} == {torch.float64}


def test_parametrized_cells_stand_alone_or_not_at_all() -> None:
    torch.manual_seed(0)
    plain = GRU(5, 4)
    normed = torch.nn.utils.parametrizations.weight_norm(copy.deepcopy(plain), "weight_hh")
    torch.testing.assert_close(Recurrent(normed)(X), Recurrent(plain)(X))
    with pytest.raises(ConfigError, match="weight_hh to be a plain parameter"):
        Recurrent(normed, layers=2)
    with pytest.raises(ConfigError, match="hooks, which a layer does not call"):
        Recurrent(torch.nn.utils.spectral_norm(GRU(5, 4), "weight_hh"))


@pytest.mark.parametrize("options", [{"variational_dropout": (0.5, 0.0)}, {"dropconnect": 0.5}])
def test_a_step_in_training_refuses_masks_of_a_whole_run(options: dict[str, Any]) -> None:
    layer = Recurrent(GRU(5, 4, **options))
    with pytest.raises(ConfigError, match=f"noise that every step draws for itself; got {next(iter(options))}"):
        layer.step(X[:, 0])
    stream = layer.stream(len(X))
    with pytest.raises(ConfigError, match="running one step in training"):
        stream(X[:, 0])
    layer.eval()
    torch.testing.assert_close(layer.step(X[:, 0])[0], stream(X[:, 0]))


@pytest.mark.parametrize(("name", "meant"), [("lenghts", "lengths"), ("reset", "resets"), ("states", "state")])
def test_arguments_that_are_misspelt_are_told_as_they_were_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"got \['{name}'\]; try: {meant}=…"):
        Recurrent(GRU(5, 4))(X, **{name: None})
