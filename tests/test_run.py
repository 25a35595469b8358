"""What a run folder keeps: the options and files it was started with, and nothing it did not make."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg
from tidegate.config import Config, make_config, read_config
from tidegate.errors import ArtifactError, ConfigError, DataError
from tidegate.files import read_sealed, write_sealed
from tidegate.run import CONFIG, Trained, check_same, read_run, run, start_run, train

OPTIONS: dict[str, Any] = {"target": "y", "id": "id", "time": "t", "epochs": 2, "hidden_size": 4}


def table(count: int = 20) -> pl.DataFrame:
    rows = [{"id": i, "t": t, "x": (i % 2) * 2 + t / 10, "y": "ab"[i % 2]} for i in range(count) for t in range(4)]
    return pl.DataFrame(rows)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A run that was started on d.csv and v.csv, and not trained."""
    table().write_csv(tmp_path / "d.csv")
    table(8).write_csv(tmp_path / "v.csv")
    start_run(tmp_path / "RUN", str(tmp_path / "d.csv"), str(tmp_path / "v.csv"), make_config(OPTIONS))
    return tmp_path / "RUN"


def test_a_record_is_read_as_it_was_written(started: Path) -> None:
    record = read_run(started)
    assert record.config == make_config(OPTIONS)
    assert (record.data, record.valid_data) == (str(started.parent / "d.csv"), str(started.parent / "v.csv"))


@pytest.mark.parametrize("name", ["d.csv", "v.csv"])
def test_a_file_that_changed_does_not_resume(name: str, started: Path) -> None:
    path = started.parent / name
    path.write_text(path.read_text().replace("2.1", "3.1"))
    with pytest.raises(DataError, match=rf"{name} as it was when the run started"):
        run(started, resume=True)


def test_an_edited_option_is_noticed(started: Path) -> None:
    body = json.loads((started / CONFIG).read_text())
    body["config"]["lr"] = 0.5
    (started / CONFIG).write_text(json.dumps(body))
    with pytest.raises(ArtifactError, match=r"its checksum differs; try: .*start a new run to change options"):
        run(started, resume=True)


def test_a_record_of_another_shape_is_named(started: Path) -> None:
    body = read_sealed(started / CONFIG, "reading", "")
    write_sealed(started / CONFIG, {**body, "data": 5})
    with pytest.raises(ArtifactError, match="got data: Input should be a valid string"):
        read_run(started)


def test_the_same_options_resume(started: Path) -> None:
    check_same(started, str(started.parent / "d.csv"), str(started.parent / "v.csv"), dict(OPTIONS))
    check_same(started, None, None, {"bidirectional": None, **read_config(started / CONFIG), "valid": 0.15})


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"options": {"lr": 1.0}}, "'lr' as the run was started with, 0.003; got 1.0"),
        ({"options": {"patience": None}}, "'patience' as the run was started with, 15; got None"),
        ({"data": "other.csv"}, "'data' as the run was started with"),
        ({"valid": "d.csv"}, "'valid' as the run was started with"),
    ],
)
def test_other_options_do_not_resume(asked: dict[str, Any], named: str, started: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        check_same(started, asked.get("data"), asked.get("valid"), asked.get("options", {}))


def test_a_start_that_was_killed_starts(started: Path) -> None:
    (started / CONFIG).rename(started / f".{CONFIG}.half")
    start_run(started, str(started.parent / "d.csv"), None, make_config(OPTIONS))
    assert read_run(started).valid_data is None


def test_its_configuration_reproduces_a_run(started: Path) -> None:
    first = run(started, resume=False)
    assert isinstance(first, Trained)
    again = tg.fit(started.parent / "d.csv", config=started / CONFIG, quiet=True)
    for name, value in first.model.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name
    assert again.metrics == first.model.metrics


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("target", ["y", "nothing"])
def test_training_leaves_random_states_alone(target: str) -> None:
    def seed() -> None:
        random.seed(1), np.random.seed(2), torch.manual_seed(3)

    seed()
    expected = draws()
    seed()
    try:
        tg.fit(table(), **{**OPTIONS, "target": target}, quiet=True)
    except ConfigError:
        assert target == "nothing"
    assert draws() == expected


def test_the_types_of_training_read_the_validation_file(tmp_path: Path) -> None:
    frame = table().with_columns(zone=pl.Series(["1", "2", "B", "C"] * 20))
    frame.write_csv(tmp_path / "d.csv")
    frame.filter(pl.col("zone").is_in(["1", "2"])).write_csv(tmp_path / "v.csv")
    done = train(tmp_path / "d.csv", make_config(OPTIONS), valid=tmp_path / "v.csv")
    assert done.prepared.sizes == {"train_sequences": 20, "valid_sequences": 20}
    assert not [note for note in done.notes if "v.csv" in note]


def test_options_without_effect_are_said() -> None:
    options = {**OPTIONS, "task": "classification", "horizon": 3, "quantiles": ()}
    notes = train(table(), make_config(options)).notes
    assert notes == ["horizon has no effect on classification", "quantiles has no effect on classification"]
    assert not train(table(), Config(**OPTIONS, lookback=None)).notes
    idle = {"momentum": 0.5, "plateau_epochs": 3, "lr_factor": 0.5, "cell": "mingru", "dropconnect": 0.3}
    assert train(table(), make_config({**OPTIONS, **idle})).notes == [
        "momentum has no effect with optimizer='adamw'",
        "lr_factor has no effect with schedule='cosine'",
        "plateau_epochs has no effect with schedule='cosine' and optimizer='adamw'",
        "dropconnect has no effect on MinGRU: its step never reads it",
    ]
    obeyed = {"momentum": 0.5, "optimizer": "momentum", "plateau_epochs": 3, "lr_factor": 0.5, "schedule": "plateau"}
    assert not train(table(), make_config({**OPTIONS, **obeyed})).notes
