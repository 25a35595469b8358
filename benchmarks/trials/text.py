"""Characters of Shakespeare: which comes next?"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from trials.arms import Arm, Row, Task
from trials.network import Speaker
from trials.problem import Batch, Drawn, Passes, Problem, tokens_loss

CHARACTERS = 65


@cache
def characters(data: Path) -> np.ndarray:
    """Return Tiny Shakespeare as numbers of its 65 characters."""
    text = gzip.decompress((data / "tinyshakespeare" / "input.txt.gz").read_bytes()).decode()
    return np.unique(list(text), return_inverse=True)[1]


@dataclass(frozen=True)
class Text(Problem):
    """Cross-entropy of a character, nats. The first 90 % train (`most` of them), the last 10 % validate.

    Windows of `length` characters are read from the initial state: what comes before a window is not known.
    """

    length: int = 64
    characters: int | None = None

    about: ClassVar[str] = "Tiny Shakespeare"
    figure: ClassVar[str] = "nats a character"
    needs: ClassVar[str | None] = "tinyshakespeare"
    per_step: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int, int]:
        return 32, CHARACTERS

    def train(self, seed: int, data: Path, most: int | None) -> Drawn:
        whole = characters(data)
        text = whole[: len(whole) * 9 // 10][: self.characters]

        def draw(random: np.random.Generator) -> Batch:
            return self._windows(text, random.integers(0, len(text) - self.length, self.batch))

        return self.drawn(draw, seed, most)

    def valid(self, data: Path, most: int | None) -> Passes:
        whole = characters(data)
        text = whole[len(whole) * 9 // 10 :]
        count = (len(text) - 1) // self.length
        return Passes(lambda rows: self._windows(text, rows * self.length), count // 2, 109, None, most)

    def _windows(self, text: np.ndarray, starts: np.ndarray) -> Batch:
        whole = torch.from_numpy(text[starts[:, None] + np.arange(self.length + 1)])
        return Batch(whole[:, :-1], whole[:, 1:])

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        width, tokens = self.sizes
        dropped = around.pop("embedding_dropout", 0.0)
        layer = tg.nn.Recurrent(cell(width, hidden, **inside), **around)
        return Speaker(self, tg.nn.Decoder(layer, tokens, embedding_dropout=dropped))

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return tokens_loss(prediction, batch.y)

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_SHORT = {"epochs": 10, "lr": 3e-3, "optimizer": "adamw", "clip_norm": 1.0}
_LITTLE = {"epochs": 15, "lr": 3e-3, "optimizer": "adamw", "clip_norm": 1.0}

_DESCENT = {"optimizer": "sgd", "lr": 10.0, "epochs": 20}


def _little(
    name: str, around: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None, **inside: Any
) -> Arm:
    return Arm(name, hidden=128, inside=inside, around=around or {}, settings={**_LITTLE, **(settings or {})})


TASKS = {
    "characters": Task(
        Text(steps=100),
        (
            Arm("LSTM", hidden=128, settings=_SHORT),
            Arm("LSTM, layer norm", hidden=128, inside={"layer_norm": True}, settings=_SHORT),
            Arm("LSTM, RMS norm", hidden=128, inside={"rms_norm": True}, settings=_SHORT),
            Arm("LSTM, Muon", hidden=128, settings={**_SHORT, "optimizer": "muon"}),
        ),
        (
            Row("layer norm", "LSTM", "LSTM, layer norm"),
            Row("RMS norm", "LSTM", "LSTM, RMS norm"),
            Row("Muon, AdamW otherwise", "LSTM", "LSTM, Muon"),
        ),
    ),
    "characters-little": Task(
        Text(steps=100, characters=100_000),
        (
            _little("LSTM"),
            _little("LSTM, zoneout", zoneout=(0.1, 0.02)),
            _little("LSTM, variational dropout", variational_dropout=0.1),
            _little("LSTM, embedding dropout", around={"embedding_dropout": 0.1}),
            _little("LSTM, SGD", settings=_DESCENT),
            _little("LSTM, NT-ASGD", settings={**_DESCENT, "optimizer": "nt_asgd", "plateau_epochs": 2}),
            _little("LSTM, AR and TAR", settings={"activation_l2": 2.0, "activation_slowness": 1.0}),
        ),
        (
            Row("zoneout", "LSTM", "LSTM, zoneout", "permuted MNIST: 89.8 to 93.1 % (Krueger et al. 2017) [M]"),
            Row(
                "variational dropout",
                "LSTM",
                "LSTM, variational dropout",
                "words of PTB, perplexity: 82.7 to 79.7 (Gal & Ghahramani 2016) [M]",
            ),
            Row("embedding dropout", "LSTM", "LSTM, embedding dropout"),
            Row(
                "NT-ASGD",
                "LSTM, SGD",
                "LSTM, NT-ASGD",
                "words of PTB, perplexity: 66.3 to 60.7 (Merity, Keskar & Socher 2018) [M]",
            ),
            Row(
                "activation regularisation",
                "LSTM",
                "LSTM, AR and TAR",
                "words of PTB, perplexity: 62.7 to 60.7 (Merity, Keskar & Socher 2018) [M]",
            ),
        ),
    ),
}
