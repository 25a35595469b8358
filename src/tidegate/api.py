"""One call: train on any table; load what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate.config import make_config, read_config, take_valid
from tidegate.data.output import check_place
from tidegate.data.pairs import is_lines, open_pairs
from tidegate.data.text import as_list
from tidegate.files import write_atomically
from tidegate.models import AnyModel, open_model
from tidegate.run import find_rate as test_rates
from tidegate.run import train
from tidegate.train.finder import RateTest


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
) -> AnyModel:
    """Train a recurrent model on a table of sequences, or on texts, and return it.

    With `task="generate"` or `"translate"`, `data` is a text file or a list of texts, and `target` the translations,
    a text file or a list as well; or a table and its column of texts. Else
    `data`: a path (CSV, TSV, Parquet, JSON lines, Arrow), or any frame with the Arrow interface; a row a step
    with `id` and `time`, or a row a sequence with list columns. `target`: the column or columns to predict, unless
    `config` names them. The task is inferred (see `tidegate inspect`) unless `task=` names it. `valid`: a fraction to
    hold out (whole sequences, or the last part of each series for forecasts), or a table of its own. `config`: a JSON
    or TOML file of options, or the `config.json` of a run; options given here win. Every option is a field of
    `tidegate.config.Config`. The caller's random states are left as they were.

    Raises `InputError` naming the file, row and column, or the option and its value.
    """
    if options.get("task") == "translate" and as_list(target) is not None and is_lines(data):
        data, target = open_pairs(data, target), None
    merged, held = _options(config, options, {"target": target, "id": id, "time": time}, valid)
    from tidegate.train.progress import progress

    return train(data, make_config(merged), valid=held, observers=progress(quiet)).model


def find_rate(
    data: Any,
    target: str | Sequence[str] | None = None,
    *,
    id: str | None = None,
    time: str | None = None,
    valid: Any = None,
    config: str | Path | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    out: str | Path | None = None,
    **options: Any,
) -> RateTest:
    """Try learning rates from `low` to `high` on what `fit` would train, and return the loss at each.

    `result.suggested` is the rate at which the loss falls fastest. Everything else is as in `fit`, whose options it
    takes; `out` names an HTML page to draw the curve into. See `train.finder.find_rate`.
    """
    merged, held = _options(config, options, {"target": target, "id": id, "time": time}, valid)
    if out is not None:
        targets = [target] if isinstance(target, str) else list(target or ())
        read = (data, held, config, merged.get("valid_target"), *targets)
        check_place(f"drawing the curve into {out}", Path(out), *read)
    found = test_rates(data, make_config(merged), valid=held, low=low, high=high, steps=steps)
    if out is not None:
        from tidegate.report.rates import rates_page

        page = rates_page(found.rates, found.losses, found.suggested, data if isinstance(data, str) else "")
        write_atomically(Path(out), page.encode())
    return found


def _options(
    config: str | Path | None, options: dict[str, Any], named: dict[str, Any], valid: Any
) -> tuple[dict[str, Any], Any]:
    """Return every option that was given, those of a file included, and what to validate on."""
    merged = {**(read_config(Path(config)) if config else {}), **options}
    merged |= {name: value for name, value in named.items() if value is not None}
    return merged, take_valid(merged, valid)


def load(path: str | Path) -> AnyModel:
    """Load a saved model or a run folder; `ArtifactError` names a file that is missing or damaged."""
    return open_model(Path(path))
