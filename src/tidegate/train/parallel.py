"""Devices and processes: the only place that knows accelerate."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(name: str) -> Accelerator:
    """Return an accelerator for the device called `name` (see `training_device`), in full precision.

    What was trained before, and what a launcher left in the environment, changes nothing.
    """
    device = training_device(name)
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import GradientAccumulationPlugin

    shared = PartialState._shared_state.get("device")
    mixed = AcceleratorState._shared_state.get("_mixed_precision", "no")
    if (shared is not None and shared.type != device.type) or mixed != "no":
        # accelerate keeps a process to its first choice of device and precision unless it is made to forget.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no",
        dynamo_backend="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def in_float32(prediction: Any) -> Any:
    """Return a prediction, nested as it may be, with the numbers of half precision in it as float32."""
    from accelerate.utils import convert_to_fp32

    return convert_to_fp32(prediction)


def training_device(name: str) -> torch.device:
    """Return the device called `name`: "cpu", "cuda" or "mps"; "auto" is the fastest one there is."""
    one_process()
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind in there if there[kind]))
    doing = "choosing a device"
    if name not in there:
        raise ConfigError(doing, expected="auto, cpu, cuda or mps", got=repr(name), hint="device='auto'")
    if not there[name]:
        found = ", ".join(kind for kind in there if there[kind])
        raise ConfigError(doing, expected=f"a {name} device", got=f"only {found}", hint="device='auto'")
    return torch.device(name)


def one_process() -> None:
    """Raise `ConfigError` under a launcher that starts several processes: each would train a model of its own."""
    count = os.environ.get("WORLD_SIZE", "1")
    if count != "1":
        raise ConfigError(
            "starting the training loop",
            expected="one process",
            got=f"{count} processes",
            hint="start it without `accelerate launch` or `torchrun`",
        )
