"""One step at a time: the same as the whole sequence, always with the weights as they are."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tidegate import nn as tnn
from tidegate.cells import CELLS, GRU, LSTM, Cell, ConvLSTM, MinGRU
from tidegate.compile.stepping import MOST_ROWS
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Recurrent

from .cases import STOCK, VARIANTS, assert_close, beside, random_state, states_of

SIZES = ((1, 7), (3, 16))


def compiled(layer: Recurrent, batch: int) -> bool:
    """Whether one step of this layer runs on compiled kernels alone."""
    steps = layer._compiled_steps(batch)
    if steps is None:
        return False
    x = torch.zeros(batch, layer.input_size, dtype=steps.dtype)
    return steps.step(layer.cells._modules, x, None) is not None


def whole(layer: Recurrent, x: Tensor, state: object = None) -> tuple[Tensor, object]:
    """What the reference gives for the sequence that `x` [B, T, I] is."""
    plain = copy.deepcopy(layer)
    plain.backend = "reference"
    return plain(x, state, **beside(layer.cells[0], x))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for number, name in enumerate(VARIANTS)
        for odd, dtype in enumerate((torch.float64, torch.float32))
        if name in STOCK or number // 2 % 2 == odd
    ],
)
def test_steps_and_streams_equal_the_whole(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for batch, hidden in SIZES:
        layer = Recurrent(VARIANTS[name](5, hidden, dtype=dtype)).eval()
        x = torch.randn(batch, 4, 5, dtype=dtype)
        cell = layer.cells[0]
        begin = cell.pack(tuple(s.detach()[None] for s in states_of(cell, random_state(cell, batch))))
        expected, end = whole(layer, x, begin)
        state, stream = begin, layer.stream(batch, begin)
        outputs = []
        for x_t in x.unbind(1):
            y, state = layer.step(x_t, state, **beside(cell, x_t))
            outputs.append(y)
            assert_close([stream(x_t, **beside(cell, x_t))], [y], 1e-12 if dtype == torch.float64 else 1e-5)
        tolerance = 1e-11 if dtype == torch.float64 else 2e-5
        assert_close([torch.stack(outputs, 1)], [expected], tolerance)
        for found in (state, stream.state):
            assert_close(states_of(cell, found), states_of(cell, end), tolerance)


@torch.no_grad()
@pytest.mark.parametrize(
    ("layer", "fast"),
    [
        (Recurrent(GRU(5, 8)), True),
        (Recurrent(LSTM(5, 8, layer_norm=True), layers=3), True),
        (Recurrent(LSTM(5, 8), layers=2, dropout=0.5), True),
        (Recurrent(MinGRU(5, 8)), True),
        (tnn.GRU(5, 8, 2), True),
        (Recurrent(GRU(5, 8), backend="reference"), False),
        (Recurrent(GRU(5, 8), layers=2, norm="layer"), False),
        (Recurrent(GRU(5, 8), layers=2, residual=True), False),
        (Recurrent(GRU(5, 8), hidden_sizes=(8, 6)), False),
    ],
)
def test_layers_of_every_kind(layer: Recurrent, fast: bool) -> None:
    layer.double().eval()
    assert compiled(layer, 2) is fast
    layer.batch_first = True
    x = torch.randn(2, 5, 5, dtype=torch.float64)
    expected, end = whole(layer, x)
    stream = layer.stream(2)
    torch.testing.assert_close(torch.stack([stream(x_t) for x_t in x.unbind(1)], 1), expected)
    torch.testing.assert_close(stream.state, end)
    stream.reset()
    torch.testing.assert_close(stream(x[:, 0]), expected[:, 0])


def _in_place(layer: Recurrent) -> None:
    layer.cells[0].weight_hh.mul_(0.5)


def _swap_memory(layer: Recurrent) -> None:
    layer.cells[0].weight_hh.data = layer.cells[0].weight_hh.data * 0.5


def _turn(layer: Recurrent) -> None:
    layer.cells[0].weight_ih.data = layer.cells[0].weight_ih.data.t()


def _load(layer: Recurrent) -> None:
    layer.load_state_dict({name: value * 0.5 for name, value in layer.state_dict().items()})


def _set(layer: Recurrent) -> None:
    layer.cells[0].weight_hh = nn.Parameter(layer.cells[0].weight_hh * 0.5)


def _replace(layer: Recurrent) -> None:
    layer.cells[0] = layer.cells[0].like(8, 8)


def _attribute(layer: Recurrent) -> None:
    layer.cells[0].scale = 0.5


def _normalise(layer: Recurrent) -> None:
    torch.nn.utils.parametrizations.weight_norm(layer.cells[0], "weight_hh")
    layer.cells[0].parametrizations.weight_hh.original0.mul_(0.5)


class Scaled(GRU):
    """A GRU whose plain attribute its step reads; its input weights are square."""

    gates = ("n",)
    scale = 1.0

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return torch.tanh(self.scale * n)


@torch.no_grad()
@pytest.mark.parametrize(
    "change", [_in_place, _swap_memory, _turn, _load, _set, _replace, _attribute, _normalise], ids=lambda c: c.__name__
)
def test_every_step_runs_with_the_weights_as_they_are(change) -> None:  # type: ignore[no-untyped-def]
    layer = Recurrent(Scaled(8, 8)).eval()
    x, state = torch.randn(2, 8), torch.randn(1, 2, 8)
    stream = layer.stream(2, state)
    first = stream(x)
    layer.step(x, state)
    change(layer)
    expected = whole(layer, x[:, None], state)[0][:, 0]
    assert not torch.allclose(first, expected)
    torch.testing.assert_close(layer.step(x, state)[0], expected)
    stream.reset()
    torch.testing.assert_close(stream(x), expected)


@torch.no_grad()
def test_another_dtype_takes_another_kernel() -> None:
    layer = Recurrent(GRU(5, 8)).eval()
    x = torch.randn(1, 5)
    layer.step(x)
    layer.double()
    torch.testing.assert_close(layer.step(x.double())[0], whole(layer, x.double()[:, None])[0][:, 0])
    with pytest.raises(ShapeError, match="float64"):
        layer.step(x)


@torch.no_grad()
def test_a_step_leaves_the_state_it_is_given_and_a_stream_its_outputs() -> None:
    layer = Recurrent(LSTM(5, 8), layers=2).eval()
    x = torch.randn(1, 5)
    state = layer.step(x)[1]
    kept = tuple(s.clone() for s in state)
    layer.step(x, state)
    torch.testing.assert_close(state, kept, rtol=0, atol=0)
    stream = layer.stream()
    first = stream(x)
    copied, before = first.clone(), stream.state
    stream(x)
    assert torch.equal(first, copied)
    assert not torch.equal(before[0], stream.state[0])


def test_gradients_flow_through_steps_and_not_through_streams() -> None:
    layer = Recurrent(GRU(5, 8))
    x = torch.randn(2, 3, 5, requires_grad=True)
    state, outputs = None, []
    for x_t in x.unbind(1):
        y, state = layer.step(x_t, state)
        outputs.append(y)
    (stepped,) = torch.autograd.grad(torch.stack(outputs, 1).square().sum(), x)
    (expected,) = torch.autograd.grad(layer(x)[0].square().sum(), x)
    torch.testing.assert_close(stepped, expected)
    assert not layer.stream(2)(x[:, 0]).requires_grad


@torch.no_grad()
def test_noise_is_drawn_for_every_step_in_training() -> None:
    layer = Recurrent(GRU(5, 64, recurrent_dropout=0.5))
    x = torch.randn(1, 5)
    assert not torch.equal(layer.step(x)[0], layer.step(x)[0])
    layer.eval()
    assert torch.equal(layer.step(x)[0], layer.step(x)[0])


@torch.no_grad()
def test_what_follows_torchs_operations_is_not_passed_by() -> None:
    layer = Recurrent(GRU(5, 8)).eval()
    x, many = torch.randn(1, 5), torch.randn(3, 1, 5)
    expected = layer.step(x)[0]
    mapped = torch.func.vmap(lambda each: layer.step(each)[0])(many)
    torch.testing.assert_close(mapped, torch.stack([layer.step(each)[0] for each in many]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer.step(x)[0], expected, rtol=0.05, atol=0.05)
    weights = {name: value * 0.5 for name, value in layer.named_parameters()}
    y, _ = torch.func.functional_call(layer, weights, (x[:, None],))
    with torch.nn.utils.stateless._reparametrize_module(layer, weights):
        torch.testing.assert_close(layer.step(x)[0], y[:, 0])


@torch.no_grad()
def test_steps_inside_a_graph_take_the_layers_own_node_and_leave_nothing_behind() -> None:
    class Stepping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Recurrent(GRU(5, 8)).eval()

        def forward(self, x: Tensor, state: Tensor) -> Tensor:
            return self.layer.step(x, state)[0]

    module, x, state = Stepping(), torch.randn(1, 5), torch.randn(1, 1, 8)
    exported = torch.export.export(module, (x, state), strict=False).module()
    expected = module(x, state)
    torch.testing.assert_close(exported(x, state), expected)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(x, state), expected)
    with torch.device("meta"):
        torch.testing.assert_close(module(x, state), expected)


@torch.no_grad()
def test_weights_that_kernels_cannot_read_are_refused_and_not_read() -> None:
    layer = Recurrent(GRU(5, 64)).eval()
    x = torch.randn(1, 5)
    stream = layer.stream()
    stream(x)
    kept = layer.cells[0].weight_hh.data
    for other in (torch.zeros(2, 2), kept.to("meta")):
        layer.cells[0].weight_hh = nn.Parameter(other)
        for run in (lambda: layer.step(x), lambda: stream(x), lambda: layer(x[:, None])):
            with pytest.raises(ShapeError, match="weights on the CPU"):
                run()
    layer.cells[0].weight_hh = nn.Parameter(kept)
    bias = layer.cells[0].bias_ih
    bias.data = bias.data[:1].expand(192)
    torch.testing.assert_close(layer.step(x)[0], whole(layer, x[:, None])[0][:, 0])
    torch.testing.assert_close(layer.step(torch._neg_view(x))[0], layer.step(-x)[0])


@torch.no_grad()
def test_a_stream_is_copied_and_pickled_with_its_state() -> None:
    layer = Recurrent(LSTM(5, 8)).eval()
    x = torch.randn(1, 5)
    stream = layer.stream()
    stream(x)
    others = [copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
    expected = stream(x)
    for other in others:
        torch.testing.assert_close(other(x), expected)
        torch.testing.assert_close(other.state, stream.state)
    stream(x)
    assert not torch.equal(others[0].state[0], stream.state[0])
    with torch.inference_mode():
        stream = layer.stream(MOST_ROWS + 1)
    stream.reset()
    stream(torch.randn(MOST_ROWS + 1, 5))


@torch.no_grad()
def test_threads_may_step_one_layer_at_once() -> None:
    layer = Recurrent(LSTM(16, 32), layers=2).eval()
    xs = torch.randn(4, 200, 1, 16)

    def outputs(x: Tensor) -> Tensor:
        state, found = None, []
        with torch.no_grad():
            for x_t in x:
                y, state = layer.step(x_t, state)
                found.append(y)
        return torch.stack(found)

    expected = [outputs(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(outputs, xs), expected, strict=True):
            assert torch.equal(found, wanted)


@torch.no_grad()
def test_a_layer_that_has_stepped_is_copied_and_pickled_without_its_steps() -> None:
    layer = Recurrent(GRU(5, 8)).eval()
    x = torch.randn(1, 5)
    expected = layer.step(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other.step(x)[0], expected)
        other.cells[0].weight_hh.zero_()
        other.cells[0].weight_ih.zero_()
    assert torch.equal(layer.step(x)[0], expected)


@torch.no_grad()
def test_more_rows_than_kernels_take_at_once_run_too() -> None:
    layer = Recurrent(GRU(5, 8)).eval()
    x = torch.randn(MOST_ROWS + 1, 5)
    assert not compiled(layer, MOST_ROWS + 1)
    torch.testing.assert_close(layer.stream(MOST_ROWS + 1)(x), whole(layer, x[:, None])[0][:, 0])


@torch.no_grad()
def test_a_stream_goes_on_in_another_dtype_when_it_is_reset() -> None:
    layer = Recurrent(GRU(5, 8)).eval()
    x = torch.randn(2, 3, 5)
    stream = layer.stream(2)
    stream(x[:, 0])
    layer.double()
    with pytest.raises(ShapeError, match=r"stream\.reset\(\)"):
        stream(x[:, 0].double())
    stream.reset()
    outputs = torch.stack([stream(x_t) for x_t in x.double().unbind(1)], 1)
    torch.testing.assert_close(outputs, layer(x.double())[0])


ROWS_AGAIN = ([1], torch.tensor([False, True, False]), torch.tensor([1], dtype=torch.int32), np.array([1]))


@pytest.mark.parametrize("rows", ROWS_AGAIN, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("kind", [LSTM, GRU, ConvLSTM])
def test_rows_of_a_stream_begin_anew_alone(kind: type[Cell], rows: object) -> None:
    torch.manual_seed(0)
    space = (4,) if kind is ConvLSTM else ()
    cell = ConvLSTM(5, 4, size=space, kernel_size=3) if kind is ConvLSTM else kind(5, 4)
    layer = Recurrent(cell, layers=2).eval()
    x, begin = torch.randn(3, 6, 5, *space), layer(torch.randn(3, 2, 5, *space))[1]
    stream = layer.stream(3, begin)
    for t in range(3):
        stream(x[:, t])
    stream.reset(rows)  # type: ignore[arg-type]
    stream.reset([])
    found = [stream(x[:, t]) for t in range(3, 6)]
    with torch.no_grad():
        on, anew = layer(x, begin)[0][:, 3:], layer(x[:, 3:], begin)[0]
    expected = torch.where(torch.tensor([False, True, False]).reshape(3, *[1] * (on.dim() - 1)), anew, on)
    torch.testing.assert_close(torch.stack(found, 1), expected)


@pytest.mark.parametrize("rows", [3, [3], [-1], [0.5], [True, False], torch.ones(3), "all", [[1]]])
def test_rows_that_a_stream_does_not_have_are_refused(rows: object) -> None:
    stream = Recurrent(GRU(5, 4)).eval().stream(3)
    with pytest.raises(ShapeError, match="resetting rows of a stream; expected 3 booleans, or numbers of rows, 0 to 2"):
        stream.reset(rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [0, -1, 2.5, "3", None, True])
def test_a_stream_has_some_rows(batch: object) -> None:
    with pytest.raises(ConfigError, match=r"positive integer.*layer\.stream\(batch=1\)"):
        Recurrent(GRU(5, 8)).stream(batch)  # type: ignore[arg-type]


def test_what_does_not_fit_is_told() -> None:
    layer = Recurrent(GRU(5, 8))
    x, many = torch.randn(2, 5), torch.randn(2, 3, 5)
    timed = Recurrent(CELLS["gru_d"](5, 8))
    for wrong in (None, 1.0, [[1.0]]):
        for run, read in ((timed, many), (timed.step, x), (timed.stream(2), x)):
            with pytest.raises(ShapeError, match="elapsed, a tensor of shape"):
                run(read, elapsed=wrong, observed=read)
    with pytest.raises(ConfigError, match="no input beside x"):
        layer.step(x, lengths=[1, 1])
    with pytest.raises(ConfigError, match="bidirectional"):
        Recurrent(GRU(5, 8), bidirectional=True).stream()
    with pytest.raises(ShapeError, match=r"\[1, 2, 8\]"):
        layer.stream(2, torch.zeros(1, 3, 8))
    with pytest.raises(ShapeError, match=r"\[B, 5\]"):
        layer.stream()(torch.zeros(1, 4))
    with pytest.raises(ShapeError, match=r"x of shape \[1, 5\]"):
        layer.stream()(torch.zeros(2, 5))
    with torch.no_grad(), pytest.raises(ShapeError, match="state h"):
        layer.step(torch.zeros(1, 5), torch.zeros(1, 2, 8))
    with torch.no_grad(), pytest.raises(ShapeError, match="on meta"):
        layer.step(torch.zeros(1, 5), torch.zeros(1, 1, 8, device="meta"))
    with torch.no_grad(), pytest.raises(ShapeError, match="got list"):
        layer.step([1.0] * 5)
