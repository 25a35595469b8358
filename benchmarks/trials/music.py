"""JSB chorales: which keys sound next?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.shapes import zero_padding
from trials.arms import Arm, Check, Row, Task
from trials.problem import Batch, Passes, Problem, padded
from trials.verdict import tests

KEYS = 88


@cache
def chorales(data: Path) -> dict[str, list[np.ndarray]]:
    """Return the chorales [T_i, 88] of the parts train, valid and test."""
    from scipy.io import loadmat

    parts = loadmat(data / "music" / "JSB_Chorales.mat")
    return {
        name: [piece.astype(np.float32) for piece in parts[f"{name}data"][0]] for name in ("train", "valid", "test")
    }


@dataclass(frozen=True)
class Music(Problem):
    """Negative log-likelihood of a frame given those before, summed over 88 keys, nats; frames count alike."""

    about: ClassVar[str] = "JSB chorales"
    figure: ClassVar[str] = "NLL per frame"
    needs: ClassVar[str | None] = "music"
    per_step: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int, int]:
        return KEYS, KEYS

    def train(self, seed: int, data: Path, most: int | None) -> Passes:
        return self._passes("train", data, self.batch, seed, most)

    def valid(self, data: Path, most: int | None) -> Passes:
        return self._passes("valid", data, 38, None, most)

    def test(self, data: Path) -> Passes:
        return self._passes("test", data, 39, None, None)

    def _passes(self, part: str, data: Path, batch: int, seed: int | None, most: int | None) -> Passes:
        pieces = chorales(data)[part]

        def take(rows: np.ndarray) -> Batch:
            frames, lengths = padded([pieces[row] for row in rows], 0.0)
            whole = torch.from_numpy(frames)
            return Batch(whole[:, :-1], whole[:, 1:], lengths - 1)

        return Passes(take, len(pieces), batch, seed, most)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        each = F.binary_cross_entropy_with_logits(prediction, batch.y, reduction="none")
        return zero_padding(each, batch.lengths).sum(), int(batch.lengths.sum())

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        total, count = self.loss(batch, prediction)
        return float(total), count


_TRAINED = {
    "epochs": 150,
    "lr": 3e-3,
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "patience": 15,
}


def _arm(name: str, *, tested: bool = False, **inside: Any) -> Arm:
    return Arm(name, "lstm", 128, inside=inside, settings=_TRAINED, tested=tested)


_BEST = "LSTM, DropConnect"
_DROPPED = "words of PTB, perplexity: 71.1 to 60.7 (Merity, Keskar & Socher 2018) [M]"
_BAI = "(mean of the seeds; Bai et al. 2018: LSTM 8.45, GRU 8.43, TCN 8.10 [M])"
TASK = Task(
    Music(batch=8),
    (
        _arm("LSTM"),
        _arm("LSTM, variational dropout", variational_dropout=0.2),
        _arm("LSTM, zoneout", zoneout=(0.1, 0.05)),
        _arm("LSTM, recurrent dropout", recurrent_dropout=0.2),
        _arm(_BEST, dropconnect=0.3, tested=True),
    ),
    (
        Row("variational dropout", "LSTM", "LSTM, variational dropout"),
        Row("zoneout", "LSTM", "LSTM, zoneout"),
        Row("recurrent dropout", "LSTM", "LSTM, recurrent dropout"),
        Row("DropConnect", "LSTM", _BEST, _DROPPED),
    ),
    (Check(f"test NLL per frame at most 8.45 {_BAI}", _BEST, lambda r: fmean(tests(r)) <= 8.45),),
)
