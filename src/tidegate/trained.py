"""What every trained model is: a blueprint, a network with weights, the figures it reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from tidegate.artifact import save_model
from tidegate.blueprint import AnyBlueprint

Plan = TypeVar("Plan", bound=AnyBlueprint)


class TrainedModel(Generic[Plan]):
    """What `tg.fit` and `tg.load` return, of whatever kind of data.

    `metrics` are those of the validation part at the end of training. `notes` says what was handled in the data it
    saw last.
    """

    def __init__(self, blueprint: Plan, network: Any, metrics: dict[str, float]) -> None:
        self.blueprint, self.network = blueprint, network
        self.metrics = metrics
        self.notes: list[str] = []

    def save(self, path: str | Path) -> None:
        """Save to a folder of two files, weights and description, that `tg.load` reads."""
        save_model(Path(path), self.blueprint, self.network, self.metrics)

    def _described(self) -> str:
        architecture = self.blueprint.architecture
        weights = sum(p.numel() for p in self.network.parameters())
        return f"{architecture.cell} {architecture.hidden_size}, {weights:,} weights"
