"""What a model may add to the loss that is minimised: it knows its layers, the loop knows the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from torch import Tensor

from tidegate.errors import ConfigError
from tidegate.train.settings import TrainSettings

TERMS = ("activation_l2", "activation_slowness", "omega")


class RegulariserLike(Protocol):
    """Watches a forward pass, and returns a mean loss with its terms, for the pass last watched, added."""

    def watching(self) -> AbstractContextManager[None]: ...
    def __call__(self, loss: Tensor) -> Tensor: ...


class Nothing:
    """Adds nothing."""

    def watching(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __call__(self, loss: Tensor) -> Tensor:
        return loss


def make_regulariser(model: Any, settings: TrainSettings) -> RegulariserLike:
    """Return what `model.regulariser(…)` gives for the terms asked for; a model without it is a `ConfigError`."""
    asked = {name: getattr(settings, name) for name in TERMS}
    if not any(asked.values()):
        return Nothing()
    if not hasattr(model, "regulariser"):
        named = next(name for name in TERMS if asked[name])
        raise ConfigError(
            f"training with {named}={asked[named]:g}",
            expected="a model with a method regulariser(activation_l2=, activation_slowness=, omega=)",
            got=type(model).__name__,
            hint="return tidegate.nn.Regulariser(self, …) from it",
        )
    made: RegulariserLike = model.regulariser(**asked)
    return made
