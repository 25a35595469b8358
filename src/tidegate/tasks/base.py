"""What every task is: a head, a loss that returns sum and count, metrics, and decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from tidegate.data.batch import Batch

Better = Mapping[str, Literal["lower", "higher"]]


class Accumulator(Protocol):
    """Gathers sums and counts over batches; divides once. `better` says of each figure which way is the better one."""

    @property
    def better(self) -> Better: ...
    def update(self, batch: Batch, prediction: Tensor) -> None: ...
    def compute(self) -> dict[str, float]: ...


class Task(BaseModel, ABC):
    """A target and how to learn it. Frozen and JSON-able: it is saved with the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head gives per sequence or step."""

    @property
    def per_step(self) -> bool:
        """Whether there is a prediction for every step."""
        return False

    @property
    def cosines(self) -> bool:
        """Whether the head gives cosines between what it reads and its weights, instead of a linear map."""
        return False

    @abstractmethod
    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of losses and how many were summed, both scalars."""

    @abstractmethod
    def metrics(self) -> Accumulator:
        """Return a fresh accumulator."""

    @abstractmethod
    def decode(self, prediction: Tensor) -> dict[str, np.ndarray]:
        """Return output columns in the user's own terms, one entry per prediction."""


def target_of(batch: Batch) -> Tensor:
    """Return the target; a batch without one is an error of ours."""
    if batch.target is None:
        raise RuntimeError("this batch has no target: it was made for prediction")
    return batch.target


def as_numpy(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())


def one_per(values: Tensor) -> Tensor:
    """Return the number of entries as a scalar tensor on the same device."""
    return torch.tensor(values.shape[0], device=values.device)


Classes = tuple[bool | int | float | str, ...]


def class_array(classes: Sequence[Any]) -> np.ndarray:
    """Return classes as an array whose dtype is theirs, so that predictions look like the labels given."""
    return np.array(classes) if len({type(c) for c in classes}) == 1 else np.array(classes, dtype=object)
