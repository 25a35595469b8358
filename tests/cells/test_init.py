"""B1: initialisations, block by block."""

from __future__ import annotations

import math

import pytest
import torch

from tidegate.cells import CELLS, GRU, LSTM, Cell, Elman
from tidegate.cells.init import INITIALISERS
from tidegate.errors import ConfigError


def block(cell: Cell, name: str, gate: str) -> torch.Tensor:
    return cell.get_parameter(name).detach()[cell.rows(gate)]


def test_b1_orthogonal_blocks() -> None:
    cell = LSTM(5, 16, init="orthogonal")
    for gate in cell.gates:
        u = block(cell, "weight_hh", gate)
        torch.testing.assert_close(u @ u.T, torch.eye(16), atol=1e-5, rtol=0)
        assert not block(cell, "bias_hh", gate).any()


def test_b1_identity_is_irnn() -> None:
    cell = Elman(200, 16, activation="relu", init="identity:0.5")
    torch.testing.assert_close(cell.weight_hh.detach(), 0.5 * torch.eye(16))
    assert 0.0008 < float(cell.weight_ih.detach().std()) < 0.0012
    assert not cell.bias_ih.any()


@pytest.mark.parametrize(("init", "variance"), [("xavier", 2 / (300 + 200)), ("he", 2 / 300)])
def test_b1_variances_use_the_block_not_the_stack(init: str, variance: float) -> None:
    cell = GRU(300, 200, init=init)
    assert float(block(cell, "weight_ih", "z").var()) == pytest.approx(variance, rel=0.05)


def test_b1_uniform_has_its_bound() -> None:
    w = GRU(30, 20, init="uniform:0.05").weight_hh
    assert 0.049 < float(w.detach().abs().max()) <= 0.05


def test_b1_forget_bias_is_the_sum() -> None:
    cell = LSTM(3, 4, init="forget:2")
    assert torch.equal(block(cell, "bias_ih", "f") + block(cell, "bias_hh", "f"), torch.full((4,), 2.0))
    assert block(cell, "bias_ih", "i").any()


def test_b1_chrono() -> None:
    cell = LSTM(3, 4000, init="chrono:100")
    b_f = block(cell, "bias_ih", "f")
    torch.testing.assert_close(block(cell, "bias_ih", "i"), -b_f)
    assert not block(cell, "bias_hh", "i").any()
    steps = b_f.exp()
    assert float(steps.min()) >= 1
    assert float(steps.max()) <= 99.001
    assert float(steps.mean()) == pytest.approx(50, rel=0.05)


def test_b1_several_and_by_gate() -> None:
    cell = LSTM(3, 8, init=["xavier", {"g": "orthogonal"}, "forget"])
    g = block(cell, "weight_hh", "g")
    torch.testing.assert_close(g @ g.T, torch.eye(8), atol=1e-5, rtol=0)
    assert math.isclose(float(block(cell, "bias_ih", "f").mean()), 1.0)
    i = block(cell, "weight_hh", "i")
    assert not torch.allclose(i @ i.T, torch.eye(8), atol=1e-2)


def test_b1_a_function() -> None:
    cell = GRU(3, 4, init=lambda cell, gates: cell.weight_hh.zero_())
    assert not cell.weight_hh.any()


def test_stays_with_reset_and_like() -> None:
    cell = LSTM(3, 4, init="forget:3")
    cell.reset_parameters()
    for each in (cell, cell.like(5, 6)):
        assert float(block(each, "bias_ih", "f").mean()) == 3.0


@pytest.mark.parametrize("name", sorted(set(INITIALISERS) - {"chrono", "forget"}))
@pytest.mark.parametrize("cell", list(CELLS))
def test_every_initialisation_sets_every_cell(cell: str, name: str) -> None:
    torch.manual_seed(0)
    plain = CELLS[cell](3, 4, bias=False, init=None)
    torch.manual_seed(0)
    other = CELLS[cell](3, 4, bias=False, init=name)
    before = dict(plain.named_parameters())
    for weight, after in other.named_parameters():
        assert torch.isfinite(after).all()
        if weight in ("weight_ih", "weight_hh"):
            assert not torch.equal(before[weight], after)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GRU(3, 4, init="chrono:10"), "a forget gate named 'f' or 'forget'; got gates"),
        (lambda: LSTM(3, 4, bias=False, init="forget"), "bias=False"),
        (lambda: LSTM(3, 4, init="chrono"), "as in 'chrono:784'; got 'chrono'"),
        (lambda: LSTM(3, 4, init="chrono:1"), "got 'chrono:1'"),
        (lambda: LSTM(3, 4, init="forget:x"), "got 'forget:x'"),
        (lambda: LSTM(3, 4, init="ortogonal"), "did you mean 'orthogonal'"),
        (lambda: LSTM(3, 4, init={"q": "he"}), "gates among"),
        (lambda: LSTM(3, 4, init=3), "a name, a function, or several; got 3"),
    ],
)
def test_what_cannot_be_is_said(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        build()


@pytest.mark.parametrize(
    "name",
    ["chrono:inf", "chrono:nan", "chrono:1", "uniform:-1", "uniform:inf", "xavier:nan", "xavier:-1", "forget:nan"],
)
def test_numbers_that_cannot_be(name: str) -> None:
    with pytest.raises(ConfigError, match="reading init=; expected "):
        LSTM(3, 4, init=name)
