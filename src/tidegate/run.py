"""The run folder: a configuration that reproduces it, checkpoints to resume from, the model and its report."""

from __future__ import annotations

import itertools
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidegate.artifact import DESCRIPTION, read_model, write_model
from tidegate.config import Config, make_config
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import ArtifactError, ConfigError, DataError, InputError
from tidegate.files import sha256, write_atomically
from tidegate.model import Model
from tidegate.prepare import Prepared, prepare
from tidegate.train.checkpoint import FOLDER as CHECKPOINT
from tidegate.train.events import Observer
from tidegate.train.loop import TrainResult, fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings

CONFIG, REPORT = "config.json", "report.html"
_SAMPLED_BYTES = 1 << 20


@dataclass(frozen=True)
class Trained:
    """A finished training: the model, what the loop measured, and what was prepared for it."""

    model: Model
    result: TrainResult
    prepared: Prepared
    notes: list[str] = field(default_factory=list)


def train(
    data: Any,
    config: Config,
    *,
    valid: Any = None,
    run_dir: Path | None = None,
    resume: bool = False,
    observers: Sequence[Observer] = (),
) -> Trained:
    """Prepare the data, train with the one loop, and return the model with the best validation weights."""
    seed_everything(config.seed)
    table = _table(data, config)
    prepared = prepare(table, config, None if valid is None else _table(valid, config))
    network = prepared.blueprint.network()
    result = fit(
        network,
        prepared.train,
        prepared.valid,
        _settings(prepared.config),
        observers=observers,
        run_dir=run_dir,
        resume=resume,
    )
    network.cpu().eval()
    model = Model(prepared.blueprint, network, dict(result.metrics))
    model.notes = list(prepared.notes)
    return Trained(model, result, prepared, prepared.notes)


def _table(data: Any, config: Config) -> Table:
    if isinstance(data, Table):
        return data
    return load_table(open_source(data, kinds=config.kinds, ignore=config.ignore), id=config.id, time=config.time)


def _settings(config: Config) -> TrainSettings:
    shared = TrainSettings.model_fields.keys() & Config.model_fields.keys()
    return TrainSettings(**{name: getattr(config, name) for name in shared})


def start_run(folder: Path, data: str, valid: str | None, config: Config) -> None:
    """Create the run folder with its configuration. An earlier run is never written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"creating the run folder {folder}",
            expected="a new or empty folder",
            got="one with something in it",
            hint=f"--out another name, or --resume {folder}",
        )
    for path in (data, valid):
        if path is not None and not Path(path).is_file():
            raise DataError(
                f"reading {path}",
                expected="a file",
                got="a folder" if Path(path).is_dir() else "nothing there",
                hint="check the path",
            )
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, data, valid, config)


def _write_config(folder: Path, data: str, valid: str | None, config: Config) -> None:
    body = {
        "data": str(Path(data).resolve()),
        "valid_data": str(Path(valid).resolve()) if valid else None,
        "fingerprint": fingerprint(Path(data)),
        "config": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("tidegate", "torch", "polars")}
        | {"python": platform.python_version()},
    }
    write_atomically(folder / CONFIG, json.dumps(body, indent=1, ensure_ascii=False).encode())


def fingerprint(path: Path) -> str:
    """Return a digest of a file's size and its first and last megabyte: enough to notice another file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SAMPLED_BYTES)
        file.seek(max(size - _SAMPLED_BYTES, 0))
        return sha256(str(size).encode() + head + file.read(_SAMPLED_BYTES))


def read_run(folder: Path) -> tuple[str, str | None, Config]:
    """Return data path, validation path and configuration of a run folder; a changed data file is an error."""
    doing = f"resuming the run in {folder}"
    try:
        body = json.loads((folder / CONFIG).read_bytes())
        data, valid, options, digest = body["data"], body["valid_data"], body["config"], body["fingerprint"]
    except OSError as error:
        raise ArtifactError(
            doing,
            expected=f"a readable {CONFIG}",
            got=error.strerror or str(error),
            hint="start it again: tidegate train DATA --target …",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            doing,
            expected=f"{CONFIG} as it was written",
            got=f"damaged content ({error})",
            hint="restore the file, or start again",
        ) from None
    if not isinstance(options, dict):
        raise ArtifactError(
            doing, expected=f"{CONFIG} with an object of options", got=repr(options), hint="restore the file"
        )
    config = make_config(options, doing)
    if not Path(data).is_file():
        raise DataError(doing, expected=f"the data it was started on, {data}", got="nothing there", hint="put it back")
    if fingerprint(Path(data)) != digest:
        raise DataError(
            doing,
            expected=f"{data} as it was when the run started",
            got="a file that has changed",
            hint="restore it, or start a new run",
        )
    return data, valid, config


def run(folder: Path, *, resume: bool, observers: Sequence[Observer] = ()) -> Trained | Model:
    """Train (or go on training) in a run folder; a run that is already finished returns its model."""
    data, valid, config = read_run(folder)
    if resume and (folder / DESCRIPTION).exists() and (folder / REPORT).exists():
        return Model(*read_model(folder))
    try:
        trained = train(data, config, valid=valid, run_dir=folder, resume=resume, observers=observers)
    except InputError:
        # Input that cannot be trained on leaves nothing behind; a run with a checkpoint is the user's to keep.
        if not resume and not (folder / CHECKPOINT).exists():
            shutil.rmtree(folder)
        raise
    _write_config(folder, data, valid, trained.prepared.config)
    write_model(folder, trained.model.blueprint, trained.model.network, trained.model.metrics)
    from tidegate.report.page import write_report

    write_report(folder / REPORT, trained, data)
    return trained


def default_folder(data: str) -> Path:
    """Return `runs/<data>-<n>` with the first n that is free."""
    stem = Path(data).name.split(".")[0] or "run"
    return next(p for n in itertools.count(1) if not (p := Path("runs") / f"{stem}-{n}").exists())
