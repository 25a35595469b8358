"""Language models: the next token after every token, over a text of any length."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from tidegate.data.streams import TextBatch
from tidegate.data.subwords import AnyVocabulary
from tidegate.data.vocabulary import END, UNKNOWN
from tidegate.nn.decoder import Decoder, Decoding
from tidegate.nn.states import StackState, refilled, tensors_of
from tidegate.tasks.network import Architecture, Carried, Trainable
from tidegate.tasks.tokens import TokenSums, token_loss


class LanguageBlueprint(BaseModel):
    """What a language model is apart from its weights, and the column of texts. Saved as JSON; builds the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["language"] = "language"
    column: str | None
    vocabulary: AnyVocabulary
    architecture: Architecture
    embedding_size: int = Field(ge=1)
    embedding_dropout: float = 0.0
    tied: bool
    label_smoothing: float = 0.0
    ends: bool = True

    @property
    def never(self) -> tuple[int, ...]:
        """Tokens that are not written: what is unknown, and an end where training had none to learn."""
        return (UNKNOWN,) if self.ends else (UNKNOWN, END)

    def network(self) -> LanguageNetwork:
        """Build the network with fresh weights from torch's random state."""
        return LanguageNetwork(self)


class LanguageNetwork(Trainable):
    """Embedding → recurrent layers → a score for every token (see `nn.Decoder`); the loss is cross-entropy in nats.

    It `carries`: `network(batch, carried)` returns the logits [B, T, V] and what the next batch goes on from, the
    tensors of the layers' state, so that gradients end where a window begins and the state does not.
    """

    carries = True

    def __init__(self, blueprint: LanguageBlueprint) -> None:
        super().__init__()
        architecture = blueprint.architecture
        layer = architecture.recurrent(blueprint.embedding_size)
        size, dropout = blueprint.vocabulary.size, architecture.dropout
        self.decoder = Decoder(
            layer, size, dropout=dropout, embedding_dropout=blueprint.embedding_dropout, tied=blueprint.tied
        )
        self.smoothing = blueprint.label_smoothing

    def forward(self, batch: TextBatch, carried: Carried | None = None) -> tuple[Tensor, Carried]:
        before = Decoding(None if carried is None else self.state(carried))
        logits, _, after = self.decoder(batch.tokens, before, lengths=batch.lengths)
        assert after.state is not None
        return logits, tuple(tensors_of(after.state))

    def state(self, carried: Carried) -> StackState:
        """Return the layers' state made of the tensors that were carried."""
        return refilled(self.decoder.layer.initial_state(1), carried)

    def loss(self, batch: TextBatch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return token_loss(prediction, batch.target, self.smoothing if self.training else 0.0)

    def metrics(self) -> TokenSums:
        return TokenSums()
