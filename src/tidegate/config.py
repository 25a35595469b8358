"""Everything a training run can be told: one resolved configuration reproduces it."""

from __future__ import annotations

import json
import math
import tomllib
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from tidegate.errors import ConfigError
from tidegate.registry import did_you_mean

TaskName = Literal["classification", "multilabel", "regression", "tagging", "forecasting", "generate", "translate"]
TEXT_TASKS: dict[str, dict[str, Any]] = {
    "generate": {
        "hidden_size": 512, "dropout": 0.2, "epochs": 15, "batch_size": 64, "lr": 2e-3, "patience": 3, "valid": 0.1,
        "bptt_steps": 128,
    },
    "translate": {
        "hidden_size": 384, "dropout": 0.3, "epochs": 12, "batch_size": 64, "lr": 2e-3, "patience": 3, "valid": 0.05,
        "unit": "subword", "vocabulary_size": 4_000, "label_smoothing": 0.1,
    },
}  # fmt: skip
"""Tasks on texts, and the defaults that suit them better than those of tables."""
_MOST = 10**9
Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


LossName = Literal[
    "cross_entropy", "focal", "ldam", "mse", "mae", "huber", "quantile",
    "gaussian", "laplace", "student_t", "poisson", "negative_binomial",
]  # fmt: skip
ClassWeight = Literal["balanced"] | float | dict[str, float]
_CORRECTIONS = ("class_weight", "logit_adjustment", "logit_adjustment_after", "sampling")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _class_weight(value: Any) -> Any:
    """Let classes be named by what they are (1, True), and say at once what all the forms are."""
    if isinstance(value, dict):
        fits = value and all(_is_number(w) and math.isfinite(w) and w > 0 for w in value.values())
        value = {str(name): weight for name, weight in value.items()}
    elif _is_number(value):
        fits = 0 <= value < 1
    else:
        fits = value is None or value == "balanced"
    if not fits:
        raise ValueError("'balanced', a number of at least 0 and below 1, or a weight above 0 for every class named")
    return value


def _rate(value: Any) -> Any:
    """Say at once what both forms are."""
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not several or not all(_is_number(each) and 0 <= each <= 1 for each in several):
        raise ValueError("a probability, 0 to 1, or a list of them such as [0.1, 0.2]")
    return value


Rate = Annotated[float | tuple[float, ...], BeforeValidator(_rate)]


def _cell_name(cell: Any) -> Any:
    return cell.registered() if isinstance(cell, type) and hasattr(cell, "registered") else cell


class Config(BaseModel):
    """Options of `tg.fit` and `tidegate train`. None means: decided from the data, and written down resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Names = ()
    id: str | None = None
    time: str | None = None
    task: TaskName | None = None
    known: Names = ()
    ignore: Names = ()
    kinds: dict[str, str] = Field(default_factory=dict)

    cell: Annotated[str, BeforeValidator(_cell_name)] = "gru"
    hidden_size: int = Field(default=64, ge=1, le=1 << 16)
    layers: int = Field(default=1, ge=1, le=1 << 10)
    bidirectional: bool | None = None
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    layer_norm: bool = False
    rms_norm: bool = False
    batch_norm: int = Field(default=0, ge=0, le=1 << 20)
    zoneout: Rate = 0.0
    variational_dropout: Rate = 0.0
    recurrent_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    dropconnect: float = Field(default=0.0, ge=0.0, le=1.0)
    init: Names = ()
    norm: Literal["batch", "layer", "rms"] | None = None
    residual: bool = False
    connection: Literal["residual", "highway", "dense", "skip"] | None = None
    recompute: bool = False
    pooling: Literal["last", "mean", "max", "last_mean"] = "last_mean"

    horizon: int | None = Field(default=None, ge=1, le=_MOST)
    lookback: int | None = Field(default=None, ge=1, le=_MOST)
    channels: Literal["shared", "joint"] = "shared"
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)

    loss: LossName | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weight: Annotated[ClassWeight | None, BeforeValidator(_class_weight)] = None
    focal_gamma: float = Field(default=2.0, ge=0)
    ldam_margin: float = Field(default=0.5, gt=0)
    ldam_scale: float = Field(default=30.0, gt=0)
    logit_adjustment: float = Field(default=0.0, ge=0)
    logit_adjustment_after: float = Field(default=0.0, ge=0)
    sampling: Literal["all", "balanced"] = "all"

    unit: Literal["character", "word", "subword"] = "character"
    vocabulary_size: int | None = Field(default=None, ge=3, le=_MOST)
    embedding_size: int | None = Field(default=None, ge=1, le=1 << 16)
    embedding_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    tied: bool | None = None
    bptt_steps: int | None = Field(default=None, ge=1, le=_MOST)
    vary_bptt: bool = True
    source: str | None = None
    valid_target: str | None = None
    attention: str | None = "general"
    input_feeding: bool = False
    scheduled_sampling: Literal["linear", "exponential", "inverse_sigmoid"] | None = None
    sampling_pace: float | None = Field(default=None, gt=0)

    epochs: int = Field(default=50, ge=1, le=_MOST)
    batch_size: int = Field(default=32, ge=1, le=_MOST)
    windows_per_epoch: int = Field(default=50_000, ge=1, le=_MOST)
    lr: float = Field(default=3e-3, gt=0)
    optimizer: str = "adamw"
    weight_decay: float = Field(default=1e-2, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: str = "cosine"
    lr_factor: float = Field(default=0.1, gt=0, lt=1)
    plateau_epochs: int = Field(default=5, ge=1, le=_MOST)
    warmup_steps: int = Field(default=0, ge=0, le=_MOST)
    clip_norm: float | None = Field(default=1.0, gt=0)
    clip_value: float | None = Field(default=None, gt=0)
    clip_adaptive: float | None = Field(default=None, gt=0)
    clip_quantile: float | None = Field(default=None, gt=0, le=1)
    activation_l2: float = Field(default=0.0, ge=0)
    activation_slowness: float = Field(default=0.0, ge=0)
    omega: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    patience: int | None = Field(default=15, ge=1, le=_MOST)
    monitor: str = "loss"
    valid: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    device: str = "auto"

    @field_validator("target", "known", "ignore")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError("each column once")
        return names

    @field_validator("quantiles")
    @classmethod
    def _in_order(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < q < 1 for q in quantiles) or len(set(quantiles)) < len(quantiles):
            raise ValueError("different numbers between 0 and 1")
        return tuple(sorted(quantiles))


def make_config(options: dict[str, Any], doing: str = "reading the options") -> Config:
    """Build a `Config`, turning pydantic's complaints into one clear error about the first of them."""
    for name in options:
        if name not in Config.model_fields:
            raise ConfigError(
                doing, expected="a known option", got=repr(name), hint=did_you_mean(name, Config.model_fields)
            )
    try:
        return _corrected_once(Config(**{**TEXT_TASKS.get(str(options.get("task")), {}), **options}), doing)
    except ValidationError as error:
        first = error.errors()[0]
        name, *within = map(str, first["loc"])
        # A key of `kinds` says where; which of several types was tried says nothing to a user.
        key = f".{within[0]}" if name == "kinds" and within else ""
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        default = Config.model_fields[name].get_default(call_default_factory=True)
        default = TEXT_TASKS.get(str(options.get("task")), {}).get(name, default)
        hint = "leave it out" if default in (None, (), {}) else f"{name}={default!r}, the default"
        raise ConfigError(f"{doing}: {name}{key}", expected=expected, got=repr(first["input"]), hint=hint) from None


def _corrected_once(config: Config, doing: str) -> Config:
    """Raise unless class frequencies are corrected for in one way at most: two would correct twice."""
    fields = Config.model_fields
    given = [name for name in _CORRECTIONS if getattr(config, name) != fields[name].default]
    if len(given) > 1:
        raise ConfigError(
            doing,
            expected=f"at most one of {', '.join(_CORRECTIONS)}, each of which corrects for class frequencies",
            got=" and ".join(f"{name}={getattr(config, name)!r}" for name in given),
            hint=f"leave {given[-1]} out",
        )
    return config


def read_config(path: Path) -> dict[str, Any]:
    """Read options from a JSON or TOML file, or from the configuration of a run, its validation file included."""
    doing = f"reading the configuration {path}"
    try:
        text = path.read_text(encoding="utf-8")
        options = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ConfigError(doing, expected="a file", got=error.strerror or str(error), hint="check the path") from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(
            doing, expected="JSON (or TOML, named .toml)", got=str(error), hint="check the line it names"
        ) from None
    if isinstance(options, dict) and isinstance(options.get("config"), dict):
        held = {"valid": options["valid_data"]} if options.get("valid_data") else {}
        options = {**options["config"], **held}
    if not isinstance(options, dict):
        raise ConfigError(doing, expected="an object of options", got=type(options).__name__, hint='{"lr": 0.001}')
    return options


def take_valid(options: dict[str, Any], valid: Any = None) -> Any:
    """Leave a fraction to validate on among the options, and return anything else: a table, or its path.

    `valid` wins over what the options say; text that reads as a number is a fraction.
    """
    if isinstance(options.get("valid"), str):
        stored = options.pop("valid")
        valid = stored if valid is None else valid
    if isinstance(valid, str):
        try:
            valid = float(valid)
        except ValueError:
            return valid
    if isinstance(valid, Real):
        options["valid"] = float(valid)
        return None
    return valid
