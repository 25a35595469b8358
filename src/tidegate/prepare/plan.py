"""The plan: infer what is not set, then prepare for the task it comes to."""

from __future__ import annotations

from tidegate.config import Config
from tidegate.data.schema import infer_schema
from tidegate.data.table import Table
from tidegate.errors import ConfigError
from tidegate.prepare.base import Prepared
from tidegate.prepare.forecasts import prepare_forecasts
from tidegate.prepare.objective import resolve_loss
from tidegate.prepare.sequences import prepare_sequences
from tidegate.tasks.readings import COUNTS
from tidegate.tasks.targets import check_counts


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
    window = config.bptt_steps if plan.task == "tagging" else None
    both_ways, notes = _both_ways(config, plan.task, window)
    config = config.model_copy(
        update={
            "task": plan.task,
            "id": plan.id,
            "time": plan.time,
            **resolve_loss(config, plan.task),
            "bidirectional": both_ways,
        }
    )
    if config.loss in COUNTS:
        for each in (table, *(() if valid is None else (valid,))):
            check_counts(each, plan.targets)
    if plan.task == "forecasting":
        return prepare_forecasts(table, config, plan, valid)
    prepared = prepare_sequences(table, config, plan, valid, window)
    prepared.notes.extend(notes)
    return prepared


def _both_ways(config: Config, task: str, window: int | None) -> tuple[bool, list[str]]:
    """Return whether layers run backward too, and a note where a window keeps them from it that tags would have."""
    if window is None:
        return task == "tagging" if config.bidirectional is None else config.bidirectional, []
    if config.bidirectional or config.batch_norm > 1:
        raise ConfigError(
            f"training on bptt_steps={window} at a time",
            expected="layers that run forward and do the same at every step: their state is carried on",
            got="bidirectional=True" if config.bidirectional else f"batch_norm={config.batch_norm}",
            hint="leave it out, or bptt_steps; recompute=True takes whole sequences in little memory",
        )
    said = f"layers run forward only, so that {window} steps can be read at a time"
    return False, [said] if config.bidirectional is None else []
