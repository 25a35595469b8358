"""The plan: infer what is not set, then prepare for the task it comes to."""

from __future__ import annotations

from tidegate.config import Config
from tidegate.data.schema import infer_schema
from tidegate.data.table import Table
from tidegate.prepare.base import Prepared
from tidegate.prepare.forecasts import prepare_forecasts
from tidegate.prepare.sequences import prepare_sequences


def prepare(table: Table, config: Config, valid: Table | None = None) -> Prepared:
    """Infer what is not set, split, fit kinds on the training part, and build the loaders."""
    plan = infer_schema(
        table,
        config.target,
        task=config.task,
        known=config.known,
        ignore=config.ignore,
        horizon=config.horizon,
    )
    config = config.model_copy(
        update={
            "task": plan.task,
            "id": plan.id,
            "time": plan.time,
            "bidirectional": plan.task == "tagging" if config.bidirectional is None else config.bidirectional,
        }
    )
    build = prepare_forecasts if plan.task == "forecasting" else prepare_sequences
    return build(table, config, plan, valid)
