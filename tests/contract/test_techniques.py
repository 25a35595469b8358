"""A9-A11: every technique with every cell of the catalogue, from the options that cells and layers have.

Kernels are held to the reference elsewhere; what is tried here is what a technique promises.
"""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from tidegate.cells import CELLS, FRAME_CELLS, Cell
from tidegate.cells.init import FORGET, INITIALISERS
from tidegate.cells.noise import Given
from tidegate.errors import ConfigError
from tidegate.nn import Recurrent
from tidegate.nn.norms import NORMS
from tidegate.nn.stack import CONNECTIONS
from tidegate.shapes import frames_to_rows

from .cases import beside

INPUTS, UNITS, SPACE = 4, 4, (2, 3)
KINDS: dict[str, type[Cell]] = {**dict(CELLS.items()), **dict(FRAME_CELLS.items())}
LENGTHS = torch.tensor([5, 2, 0, 4, 5])
OF_CELLS: dict[str, list[Any]] = {
    "layer_norm": [True],
    "rms_norm": [True],
    "batch_norm": [1, 3],
    "zoneout": [0.3],
    "variational_dropout": [0.3, (0.0, 0.3)],
    "recurrent_dropout": [0.3],
    "dropconnect": [0.3],
    "init": [f"{name}:5" if name == "chrono" else name for name in INITIALISERS],
}
OF_LAYERS: dict[str, list[Any]] = {
    "layers": [2],
    "bidirectional": [True],
    "dropout": [0.3],
    "residual": [True],
    "connection": list(CONNECTIONS),
    "norm": list(NORMS),
    "hidden_sizes": [(UNITS, 6)],
    "recompute": [True],
}
OTHERS = {"self", "input_size", "hidden_size", "bias", "recurrent_size", "device", "dtype"}
OTHERS_OF_LAYERS = {"self", "cell", "backend", "batch_first"}

TECHNIQUES = [
    (option, value) for options in (OF_CELLS, OF_LAYERS) for option, each in options.items() for value in each
]
DROPPED = ("variational_dropout", "recurrent_dropout", "dropconnect")


def test_every_option_is_tried() -> None:
    for kind, tried, others in ((Cell, OF_CELLS, OTHERS), (Recurrent, OF_LAYERS, OTHERS_OF_LAYERS)):
        assert set(inspect.signature(kind.__init__).parameters) == set(tried) | others, "say how to try the new option"


def build(name: str, option: str, value: Any, seed: int = 4) -> Recurrent:
    torch.manual_seed(seed)
    inside = {option: value} if option in OF_CELLS else {}
    around = {option: value} if option in OF_LAYERS else {"backend": "reference"}
    if option == "dropout":
        around["layers"] = 2
    if name in FRAME_CELLS:
        inside["size"] = SPACE
    return Recurrent(KINDS[name](INPUTS, UNITS, dtype=torch.float64, **inside), **around)


def data(name: str) -> Tensor:
    space = SPACE if name in FRAME_CELLS else ()
    return torch.randn(5, 5, INPUTS, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def run(layer: Recurrent, x: Tensor, lengths: Tensor | None = LENGTHS) -> Tensor:
    torch.manual_seed(6)
    output, _ = layer(x, lengths=lengths, **beside(layer.cells[0], x))
    assert isinstance(output, Tensor)
    return output


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, *technique) for name, technique in itertools.product(KINDS, TECHNIQUES)],
    ids=lambda each: str(each),
)
def test_every_technique_with_every_cell(name: str, option: str, value: Any) -> None:
    if option == "init" and str(value).startswith(("forget", "chrono")) and not set(FORGET) & set(KINDS[name].gates):
        with pytest.raises(ConfigError, match="a forget gate named 'f' or 'forget'"):
            build(name, option, value)
        return
    layer, x = build(name, option, value), data(name).requires_grad_()
    output = run(layer, x)
    gradients = torch.autograd.grad(output.sin().sum(), [x, *layer.parameters()], allow_unused=True)
    assert gradients[0] is not None
    assert gradients[0][0].abs().max() > 0
    assert all(g.isfinite().all() for g in gradients if g is not None)

    if option == "init":  # what padding holds and what is saved depends on no weight's value
        return
    hidden = data(name)
    for row, length in enumerate(LENGTHS):
        assert (output[row, length:] == 0).all()
        hidden[row, length:] = float("nan")
    assert torch.equal(run(build(name, option, value), hidden), output)

    layer.eval()
    kept = load(save(layer.state_dict()))
    other = build(name, option, value, seed=7).eval()
    assert not all(torch.equal(value, kept[key]) for key, value in other.state_dict().items())
    other.load_state_dict(kept)
    assert torch.equal(run(other, x.detach()), run(layer, x.detach()))


@pytest.mark.parametrize(("name", "option"), list(itertools.product(KINDS, DROPPED)))
def test_evaluation_is_the_run_whose_masks_are_what_they_are_on_average(name: str, option: str) -> None:
    layer, x = build(name, option, 0.3), data(name)
    cell = layer.cells[0]
    evaluated = run(layer.eval(), x)
    drawn = cell.train().draw(frames_to_rows(x, len(cell.space_sizes)))
    ones = Given(*({mask: torch.ones_like(value) for mask, value in each.items()} for each in drawn))
    cell.__dict__["draw"] = lambda x: ones
    torch.testing.assert_close(run(layer.train(), x), evaluated)


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_zoneout_in_evaluation_is_its_expectation(name: str) -> None:
    """Over many rows with the same input and state, one step."""
    cell = build(name, "zoneout", 0.3).cells[0]
    rows = 4000
    x = data(name)[0, 0].expand(rows, INPUTS, *cell.space_sizes)
    begun = [torch.rand(size, *cell.space_sizes, dtype=torch.float64).add_(0.5) for size in cell.state_sizes]
    states = [each.expand(rows, *each.shape) for each in begun]
    given = beside(cell, x)
    _, trained = cell.train()(x, cell.pack(tuple(states)), **given)
    _, evaluated = cell.eval()(x, cell.pack(tuple(states)), **given)
    for new, expected, old in zip(cell.unpack(trained), cell.unpack(evaluated), states, strict=True):
        # A unit is one of two values: five standard errors of their mean.
        spread = (new - old).abs().amax(0) * (0.21 / rows) ** 0.5
        assert ((new.mean(0) - expected[0]).abs() <= 5 * spread + 1e-9).all()


@pytest.mark.parametrize("option", ["zoneout", *DROPPED])
def test_masks_have_the_average_they_should(option: str) -> None:
    torch.manual_seed(0)
    cell = CELLS["lstm"](60, 60, **{option: 0.3})
    drawn = cell.draw(torch.zeros(50, 20, 60))
    for mask, value in {**drawn.rows, **drawn.steps, **drawn.whole}.items():
        assert value.mean() == pytest.approx(0.3 if mask.startswith("kept_") else 1.0, abs=0.05), mask
    assert any(drawn)
