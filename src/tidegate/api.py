"""One call: train on any table; load what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.artifact import read_model
from tidegate.config import make_config, read_config
from tidegate.errors import ConfigError
from tidegate.model import Model
from tidegate.run import train


def fit(
    data: Any,
    target: str | Sequence[str],
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
    with `id` and `time`, or a row a sequence with list columns. `target`: the column or columns to predict. The task
    is inferred (see `tidegate inspect`) unless `task=` names it. `valid`: a fraction to hold out (whole sequences,
    or the last part of each series for forecasts), or a table of its own. `config`: a JSON or TOML file of options;
    options given here win. Every option is a field of `tidegate.config.Config`.

    Raises `InputError` naming the file, row and column, or the option and its value.
    """
    merged = {**(read_config(Path(config)) if config else {}), **options}
    merged["target"] = (target,) if isinstance(target, str) else tuple(target)
    if id is not None:
        merged["id"] = id
    if time is not None:
        merged["time"] = time
    if isinstance(valid, bool) or (isinstance(valid, int) and not 0 < valid < 1):
        raise ConfigError(
            "reading valid=",
            expected="a fraction between 0 and 1, or a table",
            got=repr(valid),
            hint="valid=0.15",
        )
    if isinstance(valid, float):
        merged["valid"], valid = valid, None
    from tidegate.train.progress import progress

    return train(data, make_config(merged), valid=valid, observers=progress(quiet)).model


def load(path: str | Path) -> Model:
    """Load a saved model or a run folder; `ArtifactError` names a file that is missing or damaged."""
    return Model(*read_model(Path(path)))
