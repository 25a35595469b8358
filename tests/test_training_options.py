"""How training goes, asked for by name: every such option trains every task, and goes on where it was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg
from tidegate.cells import CELLS
from tidegate.config import make_config
from tidegate.errors import ConfigError
from tidegate.run import find_rate, train
from tidegate.train.events import Event, Step

OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "nt_asgd": {"optimizer": "nt_asgd", "plateau_epochs": 1, "lr": 0.5, "schedule": "constant"},
    "activation": {"activation_l2": 2.0, "activation_slowness": 1.0},
    "omega": {"omega": 0.1, "zoneout": 0.1, "layer_norm": True},
    "recompute": {"recompute": True},
}
PLAIN = {
    "precision": "float32", "optimizer": "sgd", "plateau_epochs": 1, "lr": 0.5, "schedule": "constant",
    "activation_l2": 0.0, "activation_slowness": 0.0, "omega": 0.0, "zoneout": 0.1, "layer_norm": True,
    "recompute": False,
}  # fmt: skip
"""The same without it."""

TASKS: dict[str, dict[str, Any]] = {
    "classification": {"target": "kind", "id": "row"},
    "tagging": {"target": "tag", "id": "row"},
    "forecasting": {"target": ("x", "y"), "id": "row", "horizon": 2, "lookback": 3, "layers": 2},
}


def table() -> pl.DataFrame:
    random, lengths = np.random.default_rng(0), [6, 7, 6, 8, 7, 6, 7, 6]
    row = np.repeat(np.arange(8), lengths)
    x = random.normal(size=len(row)) + row % 2
    return pl.DataFrame(
        {
            "row": row,
            "time": np.concatenate([np.arange(n) for n in lengths]),
            "x": x,
            "y": np.cumsum(x),
            "kind": np.where(row % 2, "odd", "even"),
            "tag": np.where(x > 0.5, "high", "low"),
        }
    )


def options(task: str, name: str) -> dict[str, Any]:
    shared = {"time": "time", "task": task, "hidden_size": 4, "epochs": 3, "batch_size": 4, "device": "cpu"}
    return {**shared, **TASKS[task], **OPTIONS[name]}


class KilledError(Exception):
    pass


def dying(event: Event) -> None:
    if isinstance(event, Step) and event.epoch == 1:
        raise KilledError


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("task", TASKS)
def test_every_option_trains_every_task_and_leaves_nothing_behind(task: str, name: str) -> None:
    config = make_config(options(task, name))
    whole = train(table(), config).model
    plain = train(table(), make_config({**options(task, name), **{k: PLAIN[k] for k in OPTIONS[name]}})).model
    apart = max(float((v - plain.network.state_dict()[k]).abs().max()) for k, v in whole.network.state_dict().items())
    if name == "recompute":
        assert apart < 1e-4
    elif name != "nt_asgd":  # which has an effect once the figure stalls
        assert apart > 1e-6
    assert not any(module._forward_hooks for module in whole.network.modules())


@pytest.mark.slow  # a kernel for every cell
@pytest.mark.parametrize("cell", [name for name, kind in CELLS.items() if not kind.inputs])
def test_all_of_them_at_once_train_every_cell(cell: str, tmp_path: Path) -> None:
    asked = {name: value for given in OPTIONS.values() for name, value in given.items() if name != "precision"}
    asked |= {"precision": "bf16", "class_weight": "balanced", "label_smoothing": 0.1, "epochs": 2}
    model = train(table(), make_config({**options("classification", "omega"), **asked, "cell": cell})).model
    assert all(weight.isfinite().all() for weight in model.network.parameters())
    model.save(tmp_path / "model")
    assert tg.load(tmp_path / "model").predict(table()).equals(model.predict(table()))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_killed_run_goes_on_where_it_was(name: str, tmp_path: Path) -> None:
    config = make_config(options("classification", name))
    whole = train(table(), config).model
    with pytest.raises(KilledError):
        train(table(), config, run_dir=tmp_path, observers=[dying])
    resumed = train(table(), config, run_dir=tmp_path, resume=True).model
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    assert resumed.metrics == whole.metrics


def test_estimators_and_the_rate_test_take_them() -> None:
    X, y = np.random.default_rng(0).normal(size=(12, 5, 2)), np.arange(12) % 2
    for name, given in OPTIONS.items():
        fitted = tg.Classifier(hidden_size=4, epochs=1, **given).fit(X, y)
        assert fitted.get_params().items() >= given.items(), name
        assert len(find_rate(table(), make_config(options("classification", name)), steps=4).rates) > 0


def test_what_cannot_be_is_named() -> None:
    for wrong, says in (
        ({"precision": "fp8"}, r"precision; expected .*'float32', 'bf16' or 'fp16'"),
        ({"omega": -1.0}, "omega; expected greater than or equal to 0"),
        ({"optimizer": "nt_agsd"}, "did you mean 'nt_asgd'"),
        ({"omega": 1.0, "batch_norm": 2}, "with omega.*got batch_norm=2"),
        ({"recompute": True, "batch_norm": 2}, "recompute=True.*got batch_norm=2"),
    ):
        with pytest.raises(ConfigError, match=says):
            train(table(), make_config({**options("classification", "recompute"), "recompute": False, **wrong}))
