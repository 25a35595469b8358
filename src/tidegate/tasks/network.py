"""The network of a task: columns in, recurrent layers, a head out."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from tidegate.cells import CELLS, FRAME_CELLS
from tidegate.data.batch import Batch
from tidegate.errors import ConfigError
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.regularise import Regulariser
from tidegate.nn.states import StackState, refilled, tensors_of
from tidegate.shapes import last_real_step, length_mask
from tidegate.tasks.base import Accumulator, Task

Carried = tuple[Tensor, ...]
Pooling = Literal["last", "mean", "max", "last_mean"]
_OF_CELLS = (
    *("layer_norm", "rms_norm", "batch_norm"),
    *("zoneout", "variational_dropout", "recurrent_dropout", "dropconnect"),
)


class Architecture(BaseModel):
    """The recurrent part and what surrounds it. Sizes are units; dropout is a probability."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: str = "gru"
    hidden_size: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=1)
    bidirectional: bool = False
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    layer_norm: bool = False
    rms_norm: bool = False
    batch_norm: int = Field(default=0, ge=0)
    zoneout: float | tuple[float, ...] = 0.0
    variational_dropout: float | tuple[float, ...] = 0.0
    recurrent_dropout: float = 0.0
    dropconnect: float = 0.0
    init: tuple[str, ...] = ()
    norm: Literal["batch", "layer", "rms"] | None = None
    residual: bool = False
    connection: Literal["residual", "highway", "dense", "skip"] | None = None
    recompute: bool = False
    pooling: Pooling = "last_mean"
    channels: Literal["shared", "joint"] = "shared"

    @property
    def carries(self) -> bool:
        """Whether the layers can go on from a state: forward only, and the same at every step."""
        return not self.bidirectional and self.batch_norm <= 1

    @property
    def output_size(self) -> int:
        """How wide the output of the recurrent layers is."""
        return self.hidden_size * (1 + self.bidirectional) * (self.layers if self.connection == "skip" else 1)

    def recurrent(self, width: int) -> Recurrent:
        """Build the recurrent layers for `width` inputs; raise `ConfigError` for a cell that reads anything else."""
        if self.cell in FRAME_CELLS:
            raise ConfigError(
                "building the network",
                expected="a cell that reads vectors",
                got=f"cell={self.cell!r}, which reads frames",
                hint="tg.nn.Recurrent takes it; for columns, a cell such as gru",
            )
        kind = CELLS[self.cell]
        if kind.inputs:
            raise ConfigError(
                "building the network",
                expected="a cell that reads the columns alone",
                got=f"cell={self.cell!r}, which reads {' and '.join(kind.inputs)} too",
                hint="tg.nn.Recurrent takes it, and what it reads by name",
            )
        inside = {name: getattr(self, name) for name in _OF_CELLS}
        cell = kind(width, self.hidden_size, init=self.init or None, **inside)
        return Recurrent(
            cell,
            layers=self.layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout,
            residual=self.residual,
            connection=self.connection,
            norm=self.norm,
            recompute=self.recompute,
        )


class Columns(nn.Module):
    """Dense columns as they are, beside an embedding of each category column: [B, T, F + Σ E_k]."""

    def __init__(self, width: int, cardinalities: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [min(32, (n + 2) // 2) for n in cardinalities]
        self.embeddings = nn.ModuleList(nn.Embedding(n, e) for n, e in zip(cardinalities, sizes, strict=True))
        self.width = width + sum(sizes)

    def forward(self, dense: Tensor, codes: Tensor) -> Tensor:
        if not self.embeddings:
            return dense
        return torch.cat([dense, *(e(codes[..., k]) for k, e in enumerate(self.embeddings))], dim=-1)


class Pool(nn.Module):
    """A sequence's outputs [B, T, D] as one vector: the last real step's, the mean, the maximum, or last and mean.

    D is what `groups` layers give, one after the other; each of them forward before backward if `bidirectional`.
    """

    def __init__(self, kind: Pooling, bidirectional: bool, groups: int = 1) -> None:
        super().__init__()
        self.kind, self.bidirectional, self.groups = kind, bidirectional, groups

    def width(self, size: int) -> int:
        return 2 * size if self.kind == "last_mean" else size

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.kind == "last":
            return self.last(x, lengths)
        real = length_mask(lengths, x.shape[1])[..., None]
        if self.kind == "max":
            best = x.masked_fill(~real, -torch.inf).amax(1)
            return best.masked_fill((lengths == 0)[:, None], 0)
        mean = (x * real).sum(1) / lengths.clamp(min=1)[:, None]
        return mean if self.kind == "mean" else torch.cat([self.last(x, lengths), mean], dim=1)

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return where each direction ends: the last real step forward, the first step backward."""
        if not self.bidirectional:
            return last_real_step(x, lengths)
        forward, backward = x.reshape(*x.shape[:2], self.groups, 2, -1).unbind(3)
        last = last_real_step(forward.flatten(2), lengths).reshape(backward[:, 0].shape)
        return torch.stack([last, backward[:, 0]], dim=2).flatten(1)


class Cosines(nn.Module):
    """The cosine between x [..., D] and each of C learned vectors, [..., C]; 0 for a vector of zeros."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(count, size)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))


class Trainable(nn.Module):
    """What the loop trains: `forward` predicts, `loss` and `metrics` judge."""

    def regulariser(self, **weights: float) -> Regulariser:
        """Return what the loop may add to the loss, of all recurrent layers."""
        return Regulariser(self, **weights)


class Network(Trainable):
    """A network for a task on tables, whose loss and metrics are the task's."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def loss(self, batch: Batch, prediction: Tensor) -> tuple[Tensor, Tensor]:
        return self.task.loss(batch, prediction)

    def metrics(self) -> Accumulator:
        return self.task.metrics()


class SequenceNetwork(Network):
    """Columns → recurrent layers → pool → dropout → linear: a prediction for every sequence."""

    def __init__(self, architecture: Architecture, task: Task, width: int, cardinalities: tuple[int, ...]) -> None:
        super().__init__(task)
        self.columns = Columns(width, cardinalities)
        self.recurrent = architecture.recurrent(self.columns.width)
        groups = architecture.layers if architecture.connection == "skip" else 1
        self.pool = Pool(architecture.pooling, architecture.bidirectional, groups)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = _head(task, self.pool.width(self.recurrent.output_size))

    def forward(self, batch: Batch) -> Tensor:
        x, _ = self.recurrent(self.columns(batch.dense, batch.codes), lengths=batch.lengths)
        return self.head(self.dropout(self.pool(x, batch.lengths)))


class StepNetwork(Network):
    """Columns → recurrent layers → dropout → linear: a prediction for every step, [B, T, C]."""

    def __init__(self, architecture: Architecture, task: Task, width: int, cardinalities: tuple[int, ...]) -> None:
        super().__init__(task)
        self.columns = Columns(width, cardinalities)
        self.recurrent = architecture.recurrent(self.columns.width)
        self.dropout = nn.Dropout(architecture.dropout)
        self.head = _head(task, self.recurrent.output_size)

    def forward(self, batch: Batch) -> Tensor:
        return self.after(batch, None)[0]

    def after(self, batch: Batch, before: StackState | None) -> tuple[Tensor, StackState]:
        """Return the predictions that follow the state `before`, and the state after them."""
        x, after = self.recurrent(self.columns(batch.dense, batch.codes), before, lengths=batch.lengths)
        return self.head(self.dropout(x)), after


class CarryingNetwork(StepNetwork):
    """A `StepNetwork` that `carries`: `network(batch, carried)` also returns the tensors of the layers' state.

    They are what it goes on from with the next batch, unless that begins.
    """

    carries = True

    def forward(  # type: ignore[override]  # a network that carries gives its state too
        self, batch: Batch, carried: Carried | None = None
    ) -> tuple[Tensor, Carried]:
        before = None if carried is None else refilled(self.recurrent.initial_state(1), carried)
        prediction, after = self.after(batch, before)
        return prediction, tuple(tensors_of(after))


def _head(task: Task, size: int) -> nn.Module:
    return Cosines(size, task.outputs) if task.cosines else nn.Linear(size, task.outputs)
