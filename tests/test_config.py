"""Options: what is accepted, and how what is not is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidegate as tg
from tidegate.config import Config, make_config, read_config, take_valid
from tidegate.errors import ConfigError


@pytest.mark.parametrize("name", ["target", "known", "ignore"])
def test_a_string_is_one_name(name: str) -> None:
    assert getattr(make_config({name: "pulse"}), name) == ("pulse",)
    assert getattr(make_config({name: ["pulse", "age"]}), name) == ("pulse", "age")


def test_quantiles_are_put_in_order() -> None:
    assert Config(quantiles=(0.9, 0.1, 0.5)).quantiles == (0.1, 0.5, 0.9)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"quantiles": (0.1, 0.1)}, "quantiles; expected different numbers between 0 and 1"),
        ({"quantiles": (0.0, 0.5)}, "quantiles; expected different numbers between 0 and 1"),
        ({"target": ("y", "y")}, "target; expected each column once"),
        ({"lr": float("inf")}, "lr; expected .* finite"),
        ({"clip_norm": float("nan")}, "clip_norm; expected .* finite"),
        ({"seed": 1 << 63}, "seed; expected less than"),
        ({"seed": -1}, "seed; expected greater than"),
        ({"hidden_size": 1 << 40}, "hidden_size; expected less than"),
        ({"epochs": 10**30}, "epochs; expected less than"),
        ({"valid": []}, "valid; expected a valid number; got .*try: valid=0.15, the default"),
        ({"clip_norm": -1}, "clip_norm; expected greater than 0; got -1; try: clip_norm=1.0, the default"),
        ({"zoneout": "a"}, r"zoneout; expected a probability, 0 to 1, or a list of them such as \[0.1, 0.2\]"),
        ({"variational_dropout": [0.1, 2]}, "variational_dropout; expected a probability, 0 to 1"),
        ({"horizon": 0}, "horizon; expected greater than or equal to 1; got 0; try: leave it out"),
        ({"target": 5}, "target; expected .* tuple"),
    ],
)
def test_a_value_that_cannot_be_is_named(options: dict[str, Any], named: str) -> None:
    assert take_valid(options) is None
    with pytest.raises(ConfigError, match=named):
        make_config(options)


@pytest.mark.parametrize("given", [0.25, np.float32(0.25), np.float64(0.25), "0.25"])
def test_a_number_is_a_fraction_to_validate_on(given: Any) -> None:
    options: dict[str, Any] = {"valid": "file.csv"}
    assert take_valid(options, given) is None
    assert make_config(options).valid == 0.25


def test_a_path_among_the_options_is_a_table_to_validate_on() -> None:
    options = {"valid": "file.csv", "lr": 1.0}
    assert take_valid(options) == "file.csv"
    assert options == {"lr": 1.0}
    options = {"valid": "file.csv"}
    assert take_valid(options, "other.csv") == "other.csv"
    assert not options


@pytest.mark.parametrize("valid", [True, 1, 0, 2.0, float("nan")])
def test_a_fraction_that_cannot_be_is_named(valid: Any) -> None:
    with pytest.raises(ConfigError, match="valid"):
        tg.fit({"y": [1.0]}, "y", valid=valid)


def test_no_target_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="expected a target column; got none"):
        tg.fit({"y": [1.0, 2.0]}, None)


def test_the_configuration_of_a_run_is_read(tmp_path: Path) -> None:
    body = {"data": "d.csv", "valid_data": "v.csv", "config": {"lr": 0.1}, "checksum": ""}
    (tmp_path / "config.json").write_text(json.dumps(body))
    assert read_config(tmp_path / "config.json") == {"lr": 0.1, "valid": "v.csv"}


@pytest.mark.parametrize(
    ("content", "named"), [("[1]", "an object of options"), ("{", "JSON"), ("[" * 100_000, "JSON")]
)
def test_a_broken_file_is_named(content: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(ConfigError, match=rf"c\.json.*{named}"):
        read_config(tmp_path / "c.json")


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(tmp_path)
