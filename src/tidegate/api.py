"""One call: train on any table; load what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.artifact import read_model
from tidegate.config import make_config, read_config, take_valid
from tidegate.model import Model
from tidegate.run import train


def fit(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    id: str | None = None,
    time: str | None = None,
    valid: Any = None,
    config: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Model:
    """Train a recurrent model on a table of sequences and return it.

    `data`: a path (CSV, TSV, Parquet, JSON lines, Arrow), or any frame with the Arrow interface; a row a step
    with `id` and `time`, or a row a sequence with list columns. `target`: the column or columns to predict, unless
    `config` names them. The task is inferred (see `tidegate inspect`) unless `task=` names it. `valid`: a fraction to
    hold out (whole sequences, or the last part of each series for forecasts), or a table of its own. `config`: a JSON
    or TOML file of options, or the `config.json` of a run; options given here win. Every option is a field of
    `tidegate.config.Config`. The caller's random states are left as they were.

    Raises `InputError` naming the file, row and column, or the option and its value.
    """
    merged = {**(read_config(Path(config)) if config else {}), **options}
    named = {"target": target, "id": id, "time": time}
    merged |= {name: value for name, value in named.items() if value is not None}
    held = take_valid(merged, valid)
    from tidegate.train.progress import progress

    return train(data, make_config(merged), valid=held, observers=progress(quiet)).model


def load(path: str | Path) -> Model:
    """Load a saved model or a run folder; `ArtifactError` names a file that is missing or damaged."""
    return Model(*read_model(Path(path)))
