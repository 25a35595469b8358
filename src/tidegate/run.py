"""The run folder: a configuration that reproduces it, checkpoints to resume from, the model and its report."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from tidegate.artifact import DESCRIPTION, WEIGHTS, write_model
from tidegate.cells.idle import idle_noise
from tidegate.config import TEXT_TASKS, Config, TaskName, make_config
from tidegate.data.infer import TYPES
from tidegate.data.pairs import is_lines
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import ArtifactError, ConfigError, DataError, InputError
from tidegate.files import file_sha256, read_sealed, write_sealed
from tidegate.models import AnyModel, make_model, open_model
from tidegate.prepare import Prepared, prepare, prepare_texts
from tidegate.train.checkpoint import FOLDER as CHECKPOINT
from tidegate.train.checkpoint import METRICS
from tidegate.train.events import Observer
from tidegate.train.finder import RateTest
from tidegate.train.finder import find_rate as test_rates
from tidegate.train.loop import TrainResult, fit
from tidegate.train.seeds import random_state_kept, seed_everything
from tidegate.train.settings import TrainSettings

CONFIG, REPORT = "config.json", "report.html"
_TABLES = tuple(task for task in get_args(TaskName) if task not in TEXT_TASKS)
_ONLY_FOR = {
    ("id", "time", "ignore", "kinds", "pooling", "class_weight", "sampling"): _TABLES,
    ("logit_adjustment", "logit_adjustment_after", "focal_gamma", "ldam_margin", "ldam_scale"): _TABLES,
    ("known", "horizon", "lookback", "channels", "windows_per_epoch"): ("forecasting",),
    ("quantiles",): ("forecasting", "regression"),
    ("unit", "vocabulary_size", "embedding_size", "embedding_dropout", "tied"): tuple(TEXT_TASKS),
    ("bptt_steps",): ("generate", "tagging"),
    ("vary_bptt",): ("generate",),
    ("source", "valid_target", "attention", "input_feeding", "scheduled_sampling", "sampling_pace"): ("translate",),
}
"""Options that some tasks obey only."""
_READ_BY: dict[str, dict[str, tuple[str, ...]]] = {
    "momentum": {"optimizer": ("momentum", "muon")},
    "lr_factor": {"schedule": ("step", "plateau")},
    "plateau_epochs": {"schedule": ("plateau",), "optimizer": ("nt_asgd",)},
}
"""Options that have an effect with some values of others only."""


@dataclass(frozen=True)
class Trained:
    """A finished training: the model, what the loop measured, and what was prepared for it."""

    model: AnyModel
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
    with random_state_kept():
        return _train(data, config, valid, run_dir, resume, observers)


def _train(
    data: Any, config: Config, valid: Any, run_dir: Path | None, resume: bool, observers: Sequence[Observer]
) -> Trained:
    seed_everything(config.seed)
    prepared = _prepared(data, config, valid)
    network = prepared.blueprint.network()
    notes = prepared.notes + _without_effect(prepared.config) + idle_noise(network)
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
    model = make_model(prepared.blueprint, network, dict(result.metrics))
    model.notes = notes
    return Trained(model, result, prepared, list(model.notes))


def find_rate(data: Any, config: Config, *, valid: Any = None, **options: Any) -> RateTest:
    """Prepare the data as `train` does and run `train.finder.find_rate` on the network it would train."""
    with random_state_kept():
        seed_everything(config.seed)
        prepared = _prepared(data, config, valid)
        return test_rates(prepared.blueprint.network(), prepared.train, _settings(prepared.config), **options)


def _prepared(data: Any, config: Config, valid: Any) -> Prepared:
    if config.task in TEXT_TASKS:
        return prepare_texts(data, config, valid)
    table = _table(data, config)
    return prepare(table, config, None if valid is None else _table(valid, config, like=table))


def _without_effect(config: Config) -> list[str]:
    """Say which options were set that the task does not obey."""
    fields = Config.model_fields.items()
    given = {n for n, field in fields if getattr(config, n) != field.get_default(call_default_factory=True)}
    notes = [
        f"{name} has no effect on {config.task}"
        for names, tasks in _ONLY_FOR.items()
        for name in names
        if name in given and config.task not in tasks
    ]
    for name, readers in _READ_BY.items():
        if name in given and not any(getattr(config, option) in values for option, values in readers.items()):
            notes.append(f"{name} has no effect with {' and '.join(f'{o}={getattr(config, o)!r}' for o in readers)}")
    return notes


def _table(data: Any, config: Config, like: Table | None = None) -> Table:
    """Read a table; `like` another one, columns they share are of its types whatever this one's values look like."""
    if isinstance(data, Table):
        return data
    kinds = dict(config.kinds)
    if like is not None:
        seen = [i for i in like.columns.values() if i.missing < like.rows and i.name != like.id_name]
        kinds |= {info.name: info.kind for info in seen if info.type in TYPES}
    source = open_source(data, kinds=kinds, ignore=config.ignore, must_have=like is None)
    return load_table(source, id=config.id, time=config.time)


def _settings(config: Config) -> TrainSettings:
    shared = TrainSettings.model_fields.keys() & Config.model_fields.keys()
    return TrainSettings(**{name: getattr(config, name) for name in shared})


class Record(BaseModel):
    """What `config.json` holds: the files of a run with their digests, its options, and the versions that ran it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    valid_data: str | None
    data_sha256: str
    valid_sha256: str | None
    texts_sha256: dict[str, str] = {}
    config: Config
    versions: dict[str, str]


def start_run(folder: Path, data: str, valid: str | None, config: Config) -> list[Path]:
    """Create the run folder with its configuration, and return the folders that were made for it, innermost first.

    An earlier run is never written over; what cannot be started leaves nothing behind.
    """
    doing = f"creating the run folder {folder}"
    config = _whole_paths(data, config)
    data_sha256 = _digest(data)
    others = {name: _digest(path) for name, path in _parallel_files(data, config).items()}
    valid_sha256 = None if valid is None else _digest(valid, "valid=", "a fraction between 0 and 1, or a file")
    record = Record(
        data=str(Path(data).resolve()),
        valid_data=None if valid is None else str(Path(valid).resolve()),
        data_sha256=data_sha256,
        valid_sha256=valid_sha256,
        texts_sha256=others,
        config=config,
        versions={name: version(name) for name in ("tidegate", "torch", "polars")}
        | {"python": platform.python_version()},
    )
    made: list[Path] = []
    try:
        if folder.exists() and (not folder.is_dir() or not _unused(folder)):
            raise ConfigError(
                doing,
                expected="a new or empty folder",
                got="one with something in it" if folder.is_dir() else "a file",
                hint=f"--out another name, or --resume {folder}",
            )
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        write_sealed(folder / CONFIG, record.model_dump(mode="json"))
    except OSError as error:
        _clear(folder, made)
        raise ConfigError(
            doing,
            expected="a place where a folder can be made",
            got=f"{error.strerror or error} ({error.filename})",
            hint="--out another place",
        ) from None
    return made


def _parallel_files(data: str, config: Config) -> dict[str, str]:
    """Return the options that name text files: the targets of sources that are a text file themselves."""
    if config.task != "translate" or not is_lines(data):
        return {}
    named = {"target": config.target[0] if config.target else None, "valid_target": config.valid_target}
    return {name: path for name, path in named.items() if path is not None}


def _whole_paths(data: str, config: Config) -> Config:
    """Return the configuration with the paths of text files from the root: a run is resumed from anywhere."""
    whole: dict[str, Any] = {name: str(Path(path).resolve()) for name, path in _parallel_files(data, config).items()}
    if "target" in whole:
        whole["target"] = (whole["target"], *config.target[1:])
    return config.model_copy(update=whole)


def _unused(folder: Path) -> bool:
    """Whether a folder holds nothing, but for what a start that was killed may leave."""
    return all(path.name.startswith(f".{CONFIG}.") for path in folder.iterdir())


def _digest(path: str, option: str = "", expected: str = "a file") -> str:
    doing = f"reading {option}{path!r}"
    try:
        if Path(path).is_file():
            return file_sha256(Path(path))
        got = "a folder" if Path(path).is_dir() else "something else" if Path(path).exists() else "nothing there"
    except OSError as error:
        got = error.strerror or str(error)
    raise DataError(doing, expected=expected, got=got, hint="check the path")


def read_run(folder: Path, *, verify: bool = True) -> Record:
    """Return the record of a run folder; a damaged record and, to `verify`, a changed data file are errors."""
    doing = f"resuming the run in {folder}"
    found = (folder / CONFIG).exists()
    hint = "restore the file, or start a new run to change options" if found else "start it: tidegate train DATA"
    try:
        record = Record.model_validate(read_sealed(folder / CONFIG, doing, hint))
    except ValidationError as error:
        first = error.errors()[0]
        raise ArtifactError(
            doing,
            expected=f"a {CONFIG} that this version understands",
            got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="resume it with the version that started it",
        ) from None
    named = [(path, record.texts_sha256[name]) for name, path in _parallel_files(record.data, record.config).items()]
    for path, digest in ((record.data, record.data_sha256), (record.valid_data, record.valid_sha256), *named):
        if verify and path is not None and _digest(path) != digest:
            raise DataError(
                doing,
                expected=f"{path} as it was when the run started",
                got="a file that has changed",
                hint="restore it, or start a new run",
            )
    return record


def check_same(folder: Path, data: str | None, valid: str | None, options: dict[str, Any]) -> None:
    """Raise `ConfigError` unless what is asked of a run that is resumed is what it was started with."""
    record = read_run(folder)
    stored = record.config.model_dump()
    # None is "decided from the data" where it is the default: the decision stands in the record.
    asked = {k: v for k, v in options.items() if v is not None or Config.model_fields[k].default is not None}
    resolved = _whole_paths(record.data, make_config({**stored, **asked})).model_dump()
    differing = {name: (value, stored[name]) for name, value in resolved.items() if value != stored[name]}
    for name, path, kept in (("data", data, record.data), ("valid", valid, record.valid_data)):
        if path is not None and str(Path(path).resolve()) != kept:
            differing[name] = (path, kept)
    for name, (asked_for, kept) in differing.items():
        raise ConfigError(
            f"resuming {folder}",
            expected=f"{name!r} as the run was started with, {kept!r}",
            got=repr(asked_for),
            hint="leave it out, or start a new run to change options",
        )


def run(
    folder: Path, *, resume: bool, made: Sequence[Path] = (), observers: Sequence[Observer] = ()
) -> Trained | AnyModel:
    """Train (or go on training) in a run folder; a run that is already finished returns its model.

    Input that cannot be trained on leaves nothing behind of what was `made` for the run (see `start_run`).
    """
    record = read_run(folder, verify=resume)
    if resume and (folder / DESCRIPTION).exists() and (folder / REPORT).exists():
        return open_model(folder)
    try:
        trained = train(
            record.data, record.config, valid=record.valid_data, run_dir=folder, resume=resume, observers=observers
        )
    except InputError:
        # A run with a checkpoint is the user's to keep.
        if not resume and not (folder / CHECKPOINT).exists():
            _clear(folder, made)
        raise
    resolved = record.model_copy(update={"config": trained.prepared.config})
    write_sealed(folder / CONFIG, resolved.model_dump(mode="json"))
    write_model(folder, trained.model.blueprint, trained.model.network, trained.model.metrics)
    from tidegate.report.page import write_report

    write_report(folder / REPORT, trained, record.data)
    return trained


def _clear(folder: Path, made: Sequence[Path]) -> None:
    """Remove a run's own files, then the folders made for it as far as nothing else is in them."""
    for name in (CONFIG, METRICS, REPORT, WEIGHTS, DESCRIPTION):
        if folder.is_dir():
            (folder / name).unlink(missing_ok=True)
    for path in made:
        if not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def default_folder(data: str) -> Path:
    """Return `runs/<data>-<n>` with the first n that is free."""
    stem = Path(data).name.split(".")[0] or "run"
    return next(p for n in itertools.count(1) if not (p := Path("runs") / f"{stem}-{n}").exists())
