"""Translation: one text from another, by an encoder and a decoder that attends to it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from tidegate.data.pairs import PairBatch
from tidegate.data.subwords import AnyVocabulary
from tidegate.data.vocabulary import END
from tidegate.errors import ConfigError
from tidegate.nn.attention import Attention
from tidegate.nn.decoder import Decoder
from tidegate.nn.regularise import Regulariser
from tidegate.nn.seq2seq import SCHEDULES, Seq2Seq
from tidegate.tasks.network import Architecture, Trainable
from tidegate.tasks.tokens import TokenSums, token_loss


class TranslationBlueprint(BaseModel):
    """What a translator is apart from its weights. Saved as JSON; builds the network.

    `columns` are what sources and targets are called. `longest` is how many tokens a translation may have for each
    of its source's, ten more in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["translation"] = "translation"
    columns: tuple[str, str]
    source: AnyVocabulary
    target: AnyVocabulary
    architecture: Architecture
    embedding_size: int = Field(ge=1)
    embedding_dropout: float = 0.0
    tied: bool
    attention: str | None
    input_feeding: bool
    label_smoothing: float = 0.0
    scheduled_sampling: str | None = None
    sampling_pace: float | None = None
    longest: float = Field(gt=0)

    def network(self) -> TranslationNetwork:
        """Build the network with fresh weights from torch's random state."""
        return TranslationNetwork(self)

    def most_steps(self, source_tokens: int) -> int:
        """Return how many tokens a translation of so long a source may have."""
        return int(self.longest * source_tokens) + 10


class TranslationNetwork(Trainable):
    """Encoder in both directions, bridge, decoder with attention (see `nn.Seq2Seq`); cross-entropy in nats.

    The encoder's directions have half of `hidden_size` each, so that its outputs are as wide as the decoder's.
    With scheduled sampling, training steps are counted in the buffer `steps`, which is saved and resumed.
    """

    def __init__(self, blueprint: TranslationBlueprint) -> None:
        super().__init__()
        plan, size = blueprint.architecture, blueprint.embedding_size
        half = plan.model_copy(update={"hidden_size": -(-plan.hidden_size // 2), "bidirectional": True})
        encoder, feeding = half.recurrent(size), blueprint.input_feeding
        layer = plan.recurrent(size + plan.output_size * feeding)
        attention = None
        if blueprint.attention is not None:
            attention = Attention(layer.output_size, encoder.output_size, score=blueprint.attention)
        decoder = Decoder(
            layer, blueprint.target.size, attention=attention, input_feeding=feeding, dropout=plan.dropout,
            embedding_dropout=blueprint.embedding_dropout, tied=blueprint.tied,
        )  # fmt: skip
        self.model = Seq2Seq(
            encoder, decoder, begin=END, end=END, source_tokens=blueprint.source.size, dropout=plan.dropout,
            embedding_dropout=blueprint.embedding_dropout,
        )  # fmt: skip
        self.steps_alone = feeding or blueprint.scheduled_sampling is not None
        self.smoothing = blueprint.label_smoothing
        self.truth = None
        if blueprint.scheduled_sampling is not None:
            assert blueprint.sampling_pace is not None
            self.truth = SCHEDULES[blueprint.scheduled_sampling](blueprint.sampling_pace)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: PairBatch) -> Tensor:
        teacher = 1.0
        if self.training and self.truth is not None:
            teacher = self.truth(int(self.get_buffer("steps")))
            self.get_buffer("steps").add_(1)
        logits, _ = self.model(
            batch.source, batch.target, lengths=batch.source_lengths, target_lengths=batch.lengths, teacher=teacher
        )
        return logits

    def regulariser(self, **weights: float) -> Regulariser:
        """Return what the loop may add to the loss; terms of outputs need a decoder that runs over whole targets."""
        asked = [name for name, weight in weights.items() if weight and name != "omega"]
        if self.steps_alone and asked:
            raise ConfigError(
                f"training a translator with {asked[0]}", expected="a decoder that reads whole targets at once",
                got="input_feeding or scheduled_sampling, which go token by token", hint=f"{asked[0]}=0",
            )  # fmt: skip
        return super().regulariser(**weights)

    def loss(self, batch: PairBatch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return token_loss(prediction, batch.target, self.smoothing if self.training else 0.0)

    def metrics(self) -> TokenSums:
        return TokenSums()
