"""What the loop can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainSettings(BaseModel):
    """Settings of the loop. `lr` is the peak rate; `patience` counts epochs without a better `monitor`.

    `monitor` is "loss" or the name of a metric, whose accumulator says whether lower or higher is better.
    `lr_factor` is what "step" multiplies the rate by after each third of the steps, and "plateau" after every
    `plateau_epochs` epochs without a better `monitor`; the optimizer "nt_asgd" averages after so many, see
    `train.average`. `activation_l2`, `activation_slowness` and `omega` weigh what a model adds to its loss, see
    `train.regularise`; `precision` is that of products in training, see `train.precision`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=50, ge=1)
    lr: float = Field(default=1e-3, gt=0)
    optimizer: str = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    schedule: str = "constant"
    lr_factor: float = Field(default=0.1, gt=0, lt=1)
    plateau_epochs: int = Field(default=5, ge=1)
    warmup_steps: int = Field(default=0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    clip_value: float | None = Field(default=None, gt=0)
    clip_adaptive: float | None = Field(default=None, gt=0)
    clip_quantile: float | None = Field(default=None, gt=0, le=1)
    activation_l2: float = Field(default=0.0, ge=0)
    activation_slowness: float = Field(default=0.0, ge=0)
    omega: float = Field(default=0.0, ge=0)
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    patience: int | None = Field(default=None, ge=1)
    monitor: str = "loss"
    device: str = "auto"
    checkpoint_every_seconds: float = Field(default=60.0, gt=0)
    restore_best: bool = True
