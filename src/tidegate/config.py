"""Everything a training run can be told: one resolved configuration reproduces it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.errors import ConfigError
from tidegate.registry import did_you_mean

TaskName = Literal["classification", "multilabel", "regression", "tagging", "forecasting"]


class Config(BaseModel):
    """Options of `tg.fit` and `tidegate train`. None means: decided from the data, and written down resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: tuple[str, ...] = ()
    id: str | None = None
    time: str | None = None
    task: TaskName | None = None
    known: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    kinds: dict[str, str] = Field(default_factory=dict)

    cell: str = "gru"
    hidden_size: int = Field(default=64, ge=1)
    layers: int = Field(default=1, ge=1)
    bidirectional: bool | None = None
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    norm: Literal["batch", "layer"] | None = None
    residual: bool = False
    connection: Literal["residual", "highway", "dense", "skip"] | None = None
    pooling: Literal["last", "mean", "max", "last_mean"] = "last_mean"

    horizon: int | None = Field(default=None, ge=1)
    lookback: int | None = Field(default=None, ge=1)
    channels: Literal["shared", "joint"] = "shared"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    loss: Literal["mse", "mae", "huber"] = "mse"

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=3e-3, gt=0)
    optimizer: str = "adamw"
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: str = "cosine"
    lr_factor: float = Field(default=0.1, gt=0, lt=1)
    plateau_epochs: int = Field(default=5, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)
    clip_value: float | None = Field(default=None, gt=0)
    patience: int | None = Field(default=15, ge=1)
    monitor: str = "loss"
    valid: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"


def make_config(options: dict[str, Any], doing: str = "reading the options") -> Config:
    """Build a `Config`, turning pydantic's complaints into one clear error about the first of them."""
    for name in options:
        if name not in Config.model_fields:
            raise ConfigError(
                doing, expected="a known option", got=repr(name), hint=did_you_mean(name, Config.model_fields)
            )
    try:
        config = Config(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{doing}: {where}",
            expected=first["msg"],
            got=repr(first["input"]),
            hint="see tidegate train --help",
        ) from None
    if any(not 0 < q < 1 for q in config.quantiles):
        raise ConfigError(
            f"{doing}: quantiles",
            expected="numbers between 0 and 1",
            got=repr(config.quantiles),
            hint="quantiles=(0.1, 0.5, 0.9)",
        )
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Read options from a JSON or TOML file."""
    doing = f"reading the configuration {path}"
    try:
        text = path.read_text(encoding="utf-8")
        options = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise ConfigError(doing, expected="a file", got="nothing there", hint="check the path") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise ConfigError(
            doing, expected="JSON (or TOML, named .toml)", got=str(error), hint="check the line it names"
        ) from None
    if not isinstance(options, dict):
        raise ConfigError(doing, expected="an object of options", got=type(options).__name__, hint='{"lr": 0.001}')
    return options
