"""What a task is: batches from a seed, a loss that trains, a figure that judges, a goal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from trials.network import Network

VALIDATION = 1_000_000
"""The seed of drawn validation parts, which no run has."""


@dataclass(frozen=True)
class Batch:
    """Inputs [B, T, ·] (or tokens [B, T]), targets, and how many steps of each row are real."""

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None

    def to(self, device: Any) -> Self:
        """Return the batch on a device."""
        moved = None if self.lengths is None else self.lengths.to(device)
        return type(self)(self.x.to(device), self.y.to(device), moved)


@dataclass(frozen=True)
class Drawn:
    """Batches that are drawn anew at every step, the same ones for the same (seed, epoch, step)."""

    draw: Callable[[np.random.Generator], Batch]
    steps: int
    seed: int

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on."""
        for step in range(start, self.steps):
            yield self.draw(np.random.default_rng([self.seed, epoch, step]))


@dataclass(frozen=True)
class Passes:
    """Passes over `count` rows, shuffled by (seed, epoch), or in order without a seed; at most `most` steps each."""

    take: Callable[[np.ndarray], Batch]
    count: int
    batch: int
    seed: int | None = None
    most: int | None = None

    @property
    def steps(self) -> int:
        """Batches of a pass; where rows are shuffled, whole ones only."""
        whole = -(-self.count // self.batch) if self.seed is None else self.count // self.batch
        return whole if self.most is None else min(whole, self.most)

    def rows(self, epoch: int) -> np.ndarray:
        """Return the rows of a pass, in their order."""
        rows = np.arange(self.count)
        return rows if self.seed is None else np.random.default_rng([self.seed, epoch]).permutation(rows)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from step `start` on."""
        rows = self.rows(epoch)
        for step in range(start, self.steps):
            yield self.take(rows[step * self.batch : (step + 1) * self.batch])


Loader = Drawn | Passes


@dataclass(frozen=True)
class Problem(ABC):
    """A task. `goal` is the figure at which it counts as solved; `chance`, what knowing nothing gives.

    `steps` is how many steps lie between evaluations (None: a pass over the data), `batch` how many rows a step has.
    """

    steps: int | None = None
    batch: int = 32
    goal: float | None = None

    about: ClassVar[str]
    figure: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    per_step: ClassVar[bool] = False
    chance: ClassVar[float | None] = None
    needs: ClassVar[str | None] = None
    """The folder of its data, beneath the data's."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Inputs of a step, outputs."""

    @abstractmethod
    def train(self, seed: int, data: Path, most: int | None) -> Loader:
        """Return what is trained on; `most` bounds the steps between evaluations."""

    @abstractmethod
    def valid(self, data: Path, most: int | None) -> Loader:
        """Return what every choice is made on."""

    def drawn(self, draw: Callable[[np.random.Generator], Batch], seed: int, most: int | None) -> Drawn:
        """Return batches that are drawn anew at every step."""
        return Drawn(draw, min(n for n in (self.steps, most) if n is not None), seed)

    def test(self, data: Path) -> Loader | None:  # noqa: ARG002 - drawn tasks have none
        """Return what is looked at once, after training."""
        return None

    @abstractmethod
    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        """Return the sum of losses and how many were summed."""

    @abstractmethod
    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        """Return the figure as a sum and a count."""

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        """Return the model: recurrent layers, and a linear head on the last step or on each."""
        inputs, outputs = self.sizes
        layer = tg.nn.Recurrent(cell(inputs, hidden, **inside), **around)
        return Network(self, layer, outputs)

    def reaches(self, figure: float) -> bool:
        """Whether a figure is the goal, or better."""
        if self.goal is None:
            return False
        return figure <= self.goal if self.better == "lower" else figure >= self.goal

    def best(self, figures: list[float]) -> float:
        """Return the best of some figures; the worst there is, of none."""
        if not figures:
            return float("inf") if self.better == "lower" else 0.0
        return min(figures) if self.better == "lower" else max(figures)


@dataclass(frozen=True)
class Made(Problem):
    """A task whose batches are drawn anew at every step, to be judged by 2 that are always the same."""

    judged: ClassVar[int] = 250
    """Rows of each of the two."""

    @abstractmethod
    def source(self, part: str, rows: int) -> Callable[[np.random.Generator], Batch]:
        """Return what draws batches of so many rows of the part "train" or "valid"."""

    def train(self, seed: int, data: Path, most: int | None) -> Drawn:  # noqa: ARG002 - drawn, not read
        return self.drawn(self.source("train", self.batch), seed, most)

    def valid(self, data: Path, most: int | None) -> Drawn:  # noqa: ARG002
        return Drawn(self.source("valid", self.judged), 2, VALIDATION)


def tokens_loss(logits: Tensor, y: Tensor, smoothing: float = 0.0) -> tuple[Tensor, int]:
    """Return the summed cross-entropy of tokens `y` [B, T], and their number; below 0 is padding."""
    flat, truth = logits.flatten(0, -2), y.flatten()
    total = F.cross_entropy(flat, truth, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return total, int((y >= 0).sum())


def right_classes(logits: Tensor, y: Tensor) -> tuple[float, int]:
    """Return how many classes were found, and of how many."""
    return float((logits.argmax(-1) == y).sum()), y.numel()


def one_hot(symbols: np.ndarray, count: int) -> Tensor:
    """Return symbols as float one-hot vectors."""
    return F.one_hot(torch.from_numpy(symbols).long(), count).float()


def padded(rows: list[np.ndarray], fill: float) -> tuple[np.ndarray, Tensor]:
    """Return rows of unlike lengths [T_i, …] as one array [B, T, …], and their lengths."""
    lengths = [len(row) for row in rows]
    out = np.full((len(rows), max(lengths), *rows[0].shape[1:]), fill, rows[0].dtype)
    for place, row in enumerate(rows):
        out[place, : len(row)] = row
    return out, torch.tensor(lengths)
