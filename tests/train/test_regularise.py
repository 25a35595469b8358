"""What a model adds to the loss is minimised with it, and is not reported as loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from test_loop import Linear, Pair, Pairs
from torch import Tensor

from tidegate.errors import ConfigError
from tidegate.train.loop import fit
from tidegate.train.regularise import TERMS
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings


class Pulled(Linear):
    """Adds the squares of its first weights, and says what it was asked for and when it was watched."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, float] = {}
        self.watched, self.seen = False, set[tuple[bool, bool]]()

    def forward(self, batch: Pair) -> Tensor:
        self.seen.add((self.training, self.watched))
        return super().forward(batch)

    def regulariser(self, **weights: float) -> Pulled:
        self.asked = weights
        return self

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.watched = True
        yield
        self.watched = False

    def __call__(self, batch: Pair | Tensor) -> Tensor:
        if isinstance(batch, Tensor):
            return batch + self.asked["omega"] * self.first.square().sum()
        return super().__call__(batch)


def train(omega: float) -> tuple[Pulled, list[float]]:
    seed_everything(0)
    model = Pulled()
    settings = TrainSettings(epochs=3, lr=1e-3, optimizer="sgd", device="cpu", omega=omega, clip_norm=None)
    return model, [row["train_loss"] for row in fit(model, Pairs(), Pairs(16), settings).history]


def test_a_models_term_is_minimised_and_not_reported() -> None:
    (plain, losses), (pulled, with_it) = train(0.0), train(40.0)
    assert (plain.asked, plain.seen) == ({}, {(True, False), (False, False)})
    assert pulled.asked == {"activation_l2": 0.0, "activation_slowness": 0.0, "omega": 40.0}
    assert pulled.seen == {(True, True), (False, False)}
    assert pulled.first.square().sum() < 0.5 * plain.first.square().sum()
    assert with_it[0] == pytest.approx(losses[0], rel=0.5)


@pytest.mark.parametrize("name", TERMS)
def test_a_model_without_terms_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"training with {name}=2; expected .* regulariser.*got Linear"):
        fit(Linear(), Pairs(), None, TrainSettings(device="cpu", **{name: 2.0}))
