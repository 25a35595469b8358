"""The embedded Reber grammar: what was read second has to be said second to last."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from tidegate.cells import Elman
from trials.arms import Arm, Check, Row, Task
from trials.problem import Batch, Made, one_hot, padded, tokens_loss
from trials.verdict import best_of

SYMBOLS = "BTPSXVE"
GRAMMAR = (
    {"T": 1, "P": 2},
    {"S": 1, "X": 3},
    {"T": 2, "V": 4},
    {"X": 2, "S": 5},
    {"P": 3, "V": 5},
    {"E": 6},
)
"""For every state, the symbols that may come and where each leads; 6 is the end, and B comes before."""
LIKELY = 0.25
"""A symbol is said to follow above this probability: what may follow has 1/2 or 1, what may not 0."""


def string(random: np.random.Generator, depth: int = 1, inner: int = 1) -> tuple[str, list[set[str]]]:
    """Return a string of the embedded grammar, and after each symbol but the last what may follow.

    `B (T|P) B … E (T|P) E`, the same of T and P both times. Source: Hochreiter & Schmidhuber 1997, section 5.1, where
    `depth` and `inner` are 1: how often a string is embedded, and how many strings of the grammar stand in the middle.
    """
    text, follows = "", []
    for _ in range(inner):
        text, follows, state = f"{text}B", [*follows, {"B"}], 0
        while state < len(GRAMMAR):
            legal = sorted(GRAMMAR[state])
            follows.append(set(legal))
            text += legal[random.integers(len(legal))]
            state = GRAMMAR[state][text[-1]]
    for _ in range(depth):
        outer = "TP"[random.integers(2)]
        text, follows = f"B{outer}{text}{outer}E", [{"B"}, {"T", "P"}, *follows, {outer}, {"E"}]
    return text, follows[1:]


def draw(random: np.random.Generator, rows: int, depth: int = 1, inner: int = 1) -> Batch:
    """Return the strings without their last symbols, one-hot [B, T, 7], and what follows.

    The target [B, T, 8] holds the symbol that follows (−1 in the padding), then whether each of the seven may.
    """
    texts, follows = zip(*(string(random, depth, inner) for _ in range(rows)), strict=True)
    numbers = [np.array([SYMBOLS.index(s) for s in text]) for text in texts]
    read, lengths = padded([each[:-1] for each in numbers], 0)
    said, _ = padded([each[1:] for each in numbers], -1)
    legal, _ = padded([np.array([[s in which for s in SYMBOLS] for which in each]) for each in follows], False)
    return Batch(one_hot(read, 7), torch.from_numpy(np.concatenate([said[..., None], legal], 2)), lengths)


class OneStep(Elman):
    """Elman's network with the gradient of its paper: the state a step begins from is an input like any other.

    The paper's units are logistic.
    """

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return super().step(x, h.detach())


@dataclass(frozen=True)
class Reber(Made):
    """The share of strings of which every step is predicted right: what may follow is held likely, and nothing else.

    Hochreiter & Schmidhuber 1997 ask only that what may follow scores highest, where half of the strings are right by
    luck: of T and P, which both stand second, one has to score above the other second to last.
    """

    depth: int = 1
    inner: int = 1

    about: ClassVar[str] = "embedded Reber grammar"
    figure: ClassVar[str] = "strings right"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    per_step: ClassVar[bool] = True

    @property
    def sizes(self) -> tuple[int, int]:
        return len(SYMBOLS), len(SYMBOLS)

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are of one grammar
        return partial(draw, rows=rows, depth=self.depth, inner=self.inner)

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return tokens_loss(prediction, batch.y[..., 0])

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        legal = batch.y[..., 1:].bool()
        right = ((prediction.softmax(-1) > LIKELY) == legal).all(-1) | (batch.y[..., 0] < 0)
        return float(right.all(1).sum()), len(right)


_SHORT = {"epochs": 30, "lr": 1e-2, "optimizer": "adam"}
_LONG = {"epochs": 60, "lr": 1e-2, "optimizer": "adam", "clip_norm": 1.0}
_LOGISTIC = {"activation": "sigmoid"}
_PUBLISHED = "embedded once: 0 to 97–100 % of trials (Hochreiter & Schmidhuber 1997) [M]"


_LSTM = Check("the LSTM predicts at least 95 % of strings right", "LSTM", lambda r: best_of(r, min) >= 0.95)


def _below_half(arm: str) -> Check:
    return Check(f"{arm}: fewer than half of the strings right", arm, lambda r: best_of(r, max) < 0.5)


TASKS = {
    "reber": Task(
        Reber(steps=50, batch=20, goal=0.95),
        (
            Arm("Elman 1990", OneStep, 15, _LOGISTIC, settings=_SHORT),
            Arm("Elman, logistic units", "rnn", 15, _LOGISTIC, settings=_SHORT),
            Arm("Elman, one-step gradient", OneStep, 15, settings=_SHORT),
            Arm("Elman", "rnn", 15, settings=_SHORT),
            Arm("LSTM", "lstm", 15, settings=_SHORT),
        ),
        (
            Row("gates: LSTM", "Elman", "LSTM"),
            Row("LSTM, Elman's network as published", "Elman 1990", "LSTM", _PUBLISHED),
            Row("backpropagation through time", "Elman, one-step gradient", "Elman"),
            Row("tanh for logistic units", "Elman, logistic units", "Elman"),
        ),
        (_LSTM, _below_half("Elman 1990"), _below_half("Elman, logistic units")),
    ),
    "reber-long": Task(
        Reber(steps=100, batch=20, goal=0.95, depth=2, inner=8),
        (Arm("Elman", "rnn", 32, settings=_LONG), Arm("LSTM", "lstm", 32, settings=_LONG)),
        (Row("gates: LSTM", "Elman", "LSTM"),),
        (_LSTM, _below_half("Elman")),
    ),
}
