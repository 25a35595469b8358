"""What a trained model is, apart from its weights: schema, fitted kinds, task, architecture. Saved as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from tidegate.data.features import Encoded, Features
from tidegate.data.kinds import Number
from tidegate.data.loader import Forecasts, Loader, Sequences
from tidegate.data.schema import Schema, check_columns
from tidegate.data.spans import Spans
from tidegate.data.table import Table
from tidegate.data.windows import Windows
from tidegate.tasks.any import AnyTask
from tidegate.tasks.classification import Classification, MultiLabel
from tidegate.tasks.forecast_network import ForecastNetwork
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.language import LanguageBlueprint
from tidegate.tasks.network import Architecture, CarryingNetwork, Network, SequenceNetwork, StepNetwork
from tidegate.tasks.regression import Regression
from tidegate.tasks.targets import scaled_steps, sequence_classes, sequence_numbers, step_classes
from tidegate.tasks.translation import TranslationBlueprint


class Blueprint(BaseModel):
    """Turns a table into batches and itself into a network; everything it knows was learnt from the training part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["table"] = "table"
    plan: Schema
    features: Features
    known: Features | None
    task: AnyTask
    architecture: Architecture

    def network(self) -> Network:
        """Build the network with fresh weights from torch's random state."""
        width, cards = self.features.width, self.features.cardinalities
        if isinstance(self.task, Forecasting):
            known = (self.known.width, self.known.cardinalities) if self.known else (0, ())
            return ForecastNetwork(self.architecture, self.task, width, cards, *known)
        kind: type[SequenceNetwork | StepNetwork] = SequenceNetwork
        if self.task.per_step:
            kind = CarryingNetwork if self.architecture.carries else StepNetwork
        return kind(self.architecture, self.task, width, cards)

    def check(self, table: Table) -> list[str]:
        """Raise unless `table` has the columns of training; return notes on what is new in it."""
        notes = self.features.check(table)
        return list(dict.fromkeys(notes + (self.known.check(table) if self.known else [])))

    def loader(
        self,
        encoded: Encoded,
        chosen: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        *,
        targets: bool = True,
        groups: Sequence[np.ndarray] = (),
        window: int | None = None,
    ) -> Loader | Spans:
        """Return batches of sequences, with their targets unless they are to be predicted.

        They are whole, or `window` steps at a time for a network that carries. With `groups`, indices into `chosen`,
        an epoch has equally many of each group.
        """
        maker = self._sequences(encoded, chosen) if targets else Sequences(encoded, chosen)
        if window is not None:
            return Spans(maker, batch_size, window, seed)
        return Loader(maker, batch_size, seed, groups=groups)

    def _sequences(self, encoded: Encoded, chosen: np.ndarray) -> Sequences:
        """Return the chosen sequences with their targets."""
        table, task = encoded.table, self.task
        check_columns(table, self.plan.targets, "targets")
        if task.per_step and isinstance(task, Classification):
            return Sequences(encoded, chosen, step_targets=step_classes(table, task.target, task.classes))
        return Sequences(encoded, chosen, self._targets(table)[torch.from_numpy(chosen)])

    def _targets(self, table: Table) -> torch.Tensor:
        task = self.task
        if isinstance(task, Classification):
            return sequence_classes(table, task.target, task.classes)
        if isinstance(task, MultiLabel):
            return torch.from_numpy(sequence_numbers(table, task.targets)).float()
        if isinstance(task, Regression):
            raw = sequence_numbers(table, task.targets)
            return torch.from_numpy((raw - np.array(task.mean)) / np.array(task.std)).float()
        raise TypeError(f"{type(task).__name__} has no target per sequence")

    def forecasts(
        self, encoded: Encoded, windows: Windows, batch_size: int, seed: int | None = None, most: int | None = None
    ) -> Loader:
        """Return batches of forecasting windows, of at most `most` an epoch."""
        task = self.task
        if not isinstance(task, Forecasting):
            raise TypeError(f"{type(task).__name__} has no windows")
        check_columns(encoded.table, task.targets, "targets")
        scalers = tuple(
            Number(name=n, mean=(m,), std=(s,), masked=False)
            for n, m, s in zip(task.targets, task.mean, task.std, strict=True)
        )
        known = Encoded(encoded.table, self.known) if self.known else None
        maker = Forecasts(encoded, known, windows, task.lookback, task.horizon, scaled_steps(encoded.table, scalers))
        return Loader(maker, batch_size, seed, most)


AnyBlueprint = Blueprint | LanguageBlueprint | TranslationBlueprint


def read_blueprint(body: dict[str, Any]) -> AnyBlueprint:
    """Return the blueprint that was saved as JSON; what has no kind is a table's."""
    kinds: TypeAdapter[AnyBlueprint] = TypeAdapter(Annotated[AnyBlueprint, Field(discriminator="kind")])
    return kinds.validate_python({"kind": "table", **body})
