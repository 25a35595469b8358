"""Images read as sequences: MNIST row by row, its pixels in a fixed random order, and small digits."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from trials.arms import Arm, Check, Row, Task
from trials.problem import Batch, Passes, Problem, right_classes
from trials.verdict import tests

Part = tuple[np.ndarray, np.ndarray]


@cache
def mnist(data: Path) -> dict[str, Part]:
    """Return images [N, 784] in 0..1 and labels: 55,000 train, the last 5,000 validate."""
    images = {part: _idx(data, f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784) for part in ("train", "t10k")}
    labels = {part: _idx(data, f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64) for part in ("train", "t10k")}
    x, y = images["train"], labels["train"]
    return {"train": (x[:55000], y[:55000]), "valid": (x[55000:], y[55000:]), "test": (images["t10k"], labels["t10k"])}


def _idx(data: Path, name: str, start: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress((data / "mnist" / name).read_bytes()), np.uint8, offset=start)


@cache
def digits() -> dict[str, Part]:
    """Return scikit-learn's 1,797 digits [N, 64] in 0..1: every fifth validates."""
    x, y = load_digits(return_X_y=True)
    held = np.arange(len(y)) % 5 == 0
    x, y = (x * (255 / 16)).astype(np.uint8), y.astype(np.int64)
    return {"train": (x[~held], y[~held]), "valid": (x[held], y[held])}


@dataclass(frozen=True)
class Images(Problem):
    """The share of images told right. `width` pixels are read at a step, in the order of `permuted`, or as they are."""

    width: int = 28
    permuted: bool = False

    figure: ClassVar[str] = "accuracy"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    about: ClassVar[str] = "MNIST"
    needs: ClassVar[str | None] = "mnist"
    chance: ClassVar[float | None] = 1 / 10

    @property
    def sizes(self) -> tuple[int, int]:
        return self.width, 10

    def parts(self, data: Path) -> dict[str, Part]:
        """Return the images of every part."""
        return mnist(data)

    def train(self, seed: int, data: Path, most: int | None) -> Passes:
        return self._passes("train", data, self.batch, seed, most or self.steps)

    def valid(self, data: Path, most: int | None) -> Passes:
        return self._passes("valid", data, 500, None, most)

    def test(self, data: Path) -> Passes | None:
        return self._passes("test", data, 500, None, None) if "test" in self.parts(data) else None

    def _passes(self, part: str, data: Path, batch: int, seed: int | None, most: int | None) -> Passes:
        images, labels = self.parts(data)[part]
        order = np.random.default_rng(0).permutation(images.shape[1]) if self.permuted else slice(None)

        def take(rows: np.ndarray) -> Batch:
            pixels = torch.from_numpy(images[rows][:, order]).float() / 255
            return Batch(pixels.reshape(len(rows), -1, self.width), torch.from_numpy(labels[rows]))

        return Passes(take, len(labels), batch, seed, most)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return F.cross_entropy(prediction, batch.y, reduction="sum"), len(batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        return right_classes(prediction, batch.y)


@dataclass(frozen=True)
class Digits(Images):
    """Scikit-learn's digits, 8 steps of 8 pixels."""

    width: int = 8

    about: ClassVar[str] = "digits"
    needs: ClassVar[str | None] = None

    def parts(self, data: Path) -> dict[str, Part]:  # noqa: ARG002 - they come with scikit-learn
        return digits()


_ROWS = {"epochs": 6, "lr": 2e-3, "optimizer": "adamw", "clip_norm": 1.0, "schedule": "cosine"}
_SHORT = {"epochs": 4, "lr": 2e-3, "optimizer": "adam", "clip_norm": 1.0}
_PIXELS = {"epochs": 10, "lr": 2e-3, "optimizer": "adam", "clip_norm": 1.0}
_DEEP = {"epochs": 30, "lr": 2e-3, "optimizer": "adam", "clip_norm": 1.0}
TASKS = {
    "mnist-rows": Task(
        Images(batch=64),
        (Arm("LSTM", hidden=128, settings=_ROWS, seeds=3, tested=True),),
        (),
        (
            Check("at least 98.5 % of the test part right", "LSTM", lambda r: min(tests(r)) >= 0.985),
            Check(
                "in at most 5 minutes of training",
                "LSTM",
                lambda r: max(x.wall_seconds for x in r) <= 300,
                lambda r: r.wall_seconds,
            ),
        ),
    ),
    # Rows as they are begin alike in every image, and have no variance there for batch norm.
    "mnist-short": Task(
        Images(steps=100, batch=64, permuted=True),
        (
            Arm("LSTM", settings=_SHORT),
            Arm("LSTM, recurrent batch norm", inside={"batch_norm": 28}, settings=_SHORT),
            Arm("LSTM, layer norm", inside={"layer_norm": True}, settings=_SHORT),
        ),
        (
            Row(
                "recurrent batch norm",
                "LSTM",
                "LSTM, recurrent batch norm",
                "permuted MNIST, whole budget: 90.2 to 95.4 % (Cooijmans et al. 2017) [M]",
            ),
            Row("layer norm", "LSTM", "LSTM, layer norm"),
        ),
    ),
    "mnist-permuted": Task(
        Images(steps=100, batch=32, width=4, permuted=True),
        (
            Arm("LSTM", settings=_PIXELS),
            Arm("LSTM, chrono", inside={"init": "chrono:196"}, settings=_PIXELS),
            Arm("LSTM, layer norm", inside={"layer_norm": True}, settings=_PIXELS),
        ),
        (
            Row("chrono initialisation", "LSTM", "LSTM, chrono"),
            Row("layer norm", "LSTM", "LSTM, layer norm"),
        ),
    ),
    "digits": Task(
        Digits(batch=32, goal=0.95),
        (
            Arm("8 layers", "gru", 32, around={"layers": 8}, settings=_DEEP),
            Arm("8 layers, layer norm", "gru", 32, around={"layers": 8, "norm": "layer"}, settings=_DEEP),
            Arm("8 layers, residual", "gru", 32, around={"layers": 8, "connection": "residual"}, settings=_DEEP),
            Arm("8 layers, highway", "gru", 32, around={"layers": 8, "connection": "highway"}, settings=_DEEP),
        ),
        (
            Row("layer norm between layers", "8 layers", "8 layers, layer norm"),
            Row("residual connections", "8 layers", "8 layers, residual"),
            Row("highway connections", "8 layers", "8 layers, highway"),
        ),
    ),
}
