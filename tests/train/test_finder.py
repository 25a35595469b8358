"""B2: the learning-rate test, on a problem whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import tidegate as tg
from tidegate.cli import app
from tidegate.errors import ConfigError, DataError
from tidegate.train.clip import clip_gradients
from tidegate.train.finder import find_rate
from tidegate.train.settings import TrainSettings

SETTINGS = TrainSettings(optimizer="sgd", lr=0.5, device="cpu")


class Batches:
    def __init__(self, count: int = 7) -> None:
        self.steps = count

    def batches(self, epoch: int, start: int = 0) -> Iterator[Tensor]:
        for number in range(start, self.steps):
            yield torch.randn(16, 3, generator=torch.Generator().manual_seed(epoch * 100 + number))


class Quadratic(nn.Module):
    """Loss `|W x|²/2` a row: gradient descent is stable below a rate of 2 over the largest eigenvalue, about 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, batch: Tensor) -> Tensor:
        torch.rand(1)
        return batch @ self.weight

    def loss(self, batch: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return prediction.square().sum() / 2, torch.tensor(len(batch))


def test_the_suggested_rate_lies_where_training_works() -> None:
    model, state = Quadratic().eval(), torch.get_rng_state()
    found = find_rate(model, Batches(), SETTINGS, low=1e-5, high=100.0, steps=200)
    assert torch.equal(torch.get_rng_state(), state)
    assert found.suggested is not None
    assert 1e-3 < found.suggested < 2.0
    assert found.rates[-1] < 50, "it goes on although the loss has exploded"
    assert (model.weight == 1).all()
    assert not model.training
    assert model.weight.grad is None
    ratios = np.diff(np.log(found.rates))
    assert np.allclose(ratios, ratios[0])


class Below(Quadratic):
    """The same, two lower: a loss that passes 0, as that of a density does."""

    def loss(self, batch: Tensor, prediction: Tensor) -> tuple[Tensor, Tensor]:
        total, count = super().loss(batch, prediction)
        return total - 2 * count, count


def test_losses_below_zero_are_followed_as_far() -> None:
    plain, below = (
        find_rate(model(), Batches(), SETTINGS, low=1e-5, high=100.0, steps=200) for model in (Quadratic, Below)
    )
    assert below.suggested == plain.suggested
    assert below.rates[-1] < 50
    assert len(below.rates) >= len(plain.rates) - 5


def test_every_module_is_left_in_its_own_mode() -> None:
    model = Quadratic()
    model.frozen = nn.Dropout().eval()
    find_rate(model, Batches(), SETTINGS, steps=3)
    assert (model.training, model.frozen.training) == (True, False)


def test_clipping_by_quantile_remembers_the_norms_of_earlier_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(weights: Any, settings: TrainSettings, norms: list[float]) -> None:
        clip_gradients(weights, settings, norms)
        seen.append(len(norms))

    monkeypatch.setattr("tidegate.train.finder.clip_gradients", counting)
    find_rate(Quadratic(), Batches(), SETTINGS.model_copy(update={"clip_quantile": 0.1}), steps=4, high=1e-3)
    assert seen == [1, 2, 3, 4]


def test_where_nothing_is_learnt_nothing_is_suggested() -> None:
    found = find_rate(Quadratic(), Batches(), SETTINGS, low=1e-30, high=1e-29, steps=3)
    assert found.suggested is None
    assert len(found.rates) == 3


def test_what_cannot_be_is_told() -> None:
    for wrong in ({"low": 1.0, "high": 0.1}, {"low": 0.0}, {"steps": 2}):
        with pytest.raises(ConfigError, match="0 < low < high, and at least 3 steps"):
            find_rate(Quadratic(), Batches(), SETTINGS, **wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="batches to train on"):
        find_rate(Quadratic(), Batches(0), SETTINGS)


def table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    kind = np.arange(40) % 2
    rows = {"id": np.arange(40).repeat(6), "t": np.tile(np.arange(6), 40), "y": kind.repeat(6)}
    return pl.DataFrame({**rows, "x": rng.normal(kind.repeat(6))})


def test_it_tries_what_fit_would_train(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = tg.find_rate(
        table(), "y", id="id", time="t", task="classification", steps=40, hidden_size=8, out=tmp_path / "rates.html"
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert found.suggested is not None
    assert 1e-4 < found.suggested < 1
    assert "Which learning rate" in (tmp_path / "rates.html").read_text()


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "d.csv")
    given = ["find-rate", str(tmp_path / "d.csv"), "--target", "y", "--id", "id", "--time", "t", "--steps", "40"]
    said = CliRunner().invoke(app, [*given, "--set", "hidden_size=8", "--set", "task=classification", "--json"])
    assert said.exit_code == 0, said.output
    read = json.loads(said.stdout)
    expected = tg.find_rate(table(), "y", id="id", time="t", task="classification", steps=40, hidden_size=8)
    assert read["suggested"] == pytest.approx(expected.suggested, rel=1e-3)
    assert CliRunner().invoke(app, given).stdout.startswith("--lr ")
