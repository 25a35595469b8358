"""Which class a trained model is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from tidegate.artifact import read_model
from tidegate.blueprint import AnyBlueprint, Blueprint
from tidegate.model import Model
from tidegate.tasks.language import LanguageBlueprint
from tidegate.writers import TextGenerator, TextTranslator

AnyModel: TypeAlias = Model | TextGenerator | TextTranslator


def make_model(blueprint: AnyBlueprint, network: Any, metrics: dict[str, float]) -> AnyModel:
    """Return the trained model that a blueprint and a network with weights are."""
    if isinstance(blueprint, Blueprint):
        return Model(blueprint, network, metrics)
    if isinstance(blueprint, LanguageBlueprint):
        return TextGenerator(blueprint, network, metrics)
    return TextTranslator(blueprint, network, metrics)


def open_model(path: Path) -> AnyModel:
    """Return the model of a run folder or saved by hand; `ArtifactError` names a file that is missing or damaged."""
    return make_model(*read_model(path))
