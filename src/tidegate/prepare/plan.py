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
    forward_only = config.bidirectional is None and plan.task == "tagging" and config.bptt_steps is not None
    config = config.model_copy(
        update={
            "task": plan.task,
            "id": plan.id,
            "time": plan.time,
            **resolve_loss(config, plan.task),
            "bidirectional": _both_ways(config, plan.task),
        }
    )
    if config.loss in COUNTS:
        for each in (table, *(() if valid is None else (valid,))):
            check_counts(each, plan.targets)
    build = prepare_forecasts if plan.task == "forecasting" else prepare_sequences
    prepared = build(table, config, plan, valid)
    if forward_only:
        prepared.notes.append(f"layers run forward only, so that {config.bptt_steps} steps can be read at a time")
    return prepared


def _both_ways(config: Config, task: str) -> bool:
    """Return whether layers run backward too: where tags are asked for, unless a step knows only what is behind it."""
    spanned = task == "tagging" and config.bptt_steps is not None
    if spanned and (config.bidirectional or config.batch_norm > 1):
        raise ConfigError(
            f"training on bptt_steps={config.bptt_steps} at a time",
            expected="layers that run forward and do the same at every step: their state is carried on",
            got="bidirectional=True" if config.bidirectional else f"batch_norm={config.batch_norm}",
            hint="leave it out, or bptt_steps; recompute=True takes whole sequences in little memory",
        )
    return task == "tagging" and not spanned if config.bidirectional is None else config.bidirectional
