"""Reversal: a sequence of symbols has to be said backwards, by an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

import tidegate as tg
from tidegate.cells import Cell
from tidegate.nn.seq2seq import SCHEDULES
from trials.arms import Arm, Row, Task
from trials.network import Judged
from trials.problem import Batch, Made, Problem, padded, tokens_loss

BEGIN, END, FIRST, SYMBOLS = 0, 1, 2, 10


def draw(random: np.random.Generator, rows: int, longest: int) -> Batch:
    """Return sources [B, S], half to all of `longest` symbols, and each backwards with the end after it [B, T].

    What lies behind a row's end is the end again, and counts as little as the row behind its length.
    """
    sources = [random.integers(FIRST, FIRST + SYMBOLS, random.integers(longest // 2, longest + 1)) for _ in range(rows)]
    read, lengths = padded(sources, END)
    said, _ = padded([np.append(source[::-1], END) for source in sources], END)
    return Batch(torch.from_numpy(read), torch.from_numpy(said), lengths)


class Translator(Judged):
    """Tokens in, a score for each token that may follow. `pace`: of reading what it said itself, more and more often.

    `smoothing` of targets, in training.
    """

    def __init__(self, problem: Problem, model: tg.nn.Seq2Seq, smoothing: float, pace: float | None) -> None:
        super().__init__(problem)
        self.model, self.smoothing = model, smoothing
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))
        self.schedule = None if pace is None else SCHEDULES["inverse_sigmoid"](pace)

    def forward(self, batch: Batch) -> Tensor:
        """Return logits [B, T, tokens]."""
        teacher = 1.0
        if self.schedule is not None and self.training:
            teacher = self.schedule(int(self.done))
            self.done += 1
        return self.model(batch.x, batch.y, lengths=batch.lengths, teacher=teacher)[0]

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        """Return the sum of losses and how many were summed."""
        return tokens_loss(prediction, _counted(batch), self.smoothing if self.training else 0.0)


@dataclass(frozen=True)
class Reversal(Made):
    """The share of sequences that come out whole (greedy decoding is right where every step given the truth is)."""

    longest: int = 20

    about: ClassVar[str] = "reversal"
    judged: ClassVar[int] = 100
    figure: ClassVar[str] = "sequences right"
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    @property
    def sizes(self) -> tuple[int, int]:
        return 16, FIRST + SYMBOLS

    def source(self, part: str, rows: int) -> partial[Batch]:  # noqa: ARG002 - both parts are alike
        return partial(draw, rows=rows, longest=self.longest)

    def network(self, cell: type[Cell], hidden: int, inside: dict[str, Any], around: dict[str, Any]) -> nn.Module:
        width, tokens = self.sizes
        encoder = tg.nn.Recurrent(cell(width, hidden, **inside), bidirectional=True)
        attention = tg.nn.Attention(hidden, 2 * hidden) if around["attention"] else None
        decoder = tg.nn.Decoder(tg.nn.Recurrent(cell(width, hidden, **inside)), tokens, attention=attention)
        model = tg.nn.Seq2Seq(encoder, decoder, begin=BEGIN, end=END, source_tokens=tokens)
        return Translator(self, model, around.get("smoothing", 0.0), around.get("pace"))

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, int]:
        return tokens_loss(prediction, _counted(batch))

    def score(self, batch: Batch, prediction: Tensor) -> tuple[float, int]:
        truth = _counted(batch)
        right = (prediction.argmax(-1) == truth) | (truth < 0)
        return float(right.all(1).sum()), len(right)


def _counted(batch: Batch) -> Tensor:
    """Return the target, −1 behind each row's end."""
    assert batch.lengths is not None
    places = torch.arange(batch.y.shape[1])
    return batch.y.masked_fill(places > batch.lengths[:, None], -1)


_TRAINED = {"epochs": 24, "lr": 3e-3, "optimizer": "adam", "clip_norm": 1.0}
TASK = Task(
    Reversal(steps=50, goal=0.95),
    (
        Arm("encoder and decoder", "gru", around={"attention": False}, settings=_TRAINED),
        Arm("with attention", "gru", around={"attention": True}, settings=_TRAINED),
        Arm("smoothed labels", "gru", around={"attention": True, "smoothing": 0.1}, settings=_TRAINED),
        Arm("scheduled sampling", "gru", around={"attention": True, "pace": 200.0}, settings=_TRAINED),
    ),
    (
        Row(
            "attention",
            "encoder and decoder",
            "with attention",
            "English to French: 17.82 to 26.75 BLEU (Bahdanau et al. 2015, up to 50 words) [M]",
        ),
        Row(
            "label smoothing",
            "with attention",
            "smoothed labels",
            "ImageNet: 23.1 to 22.8 % wrong (Szegedy et al. 2016) [M]",
        ),
        Row(
            "scheduled sampling",
            "with attention",
            "scheduled sampling",
            "captions: 28.8 to 30.6 BLEU-4 (Bengio et al. 2015) [M]",
        ),
    ),
)
