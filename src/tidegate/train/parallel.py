"""Devices and processes: the only place that knows accelerate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(device: str) -> Accelerator:
    """Return an accelerator for "cpu", or for the best device there is ("auto")."""
    from accelerate import Accelerator

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(
            "choosing a device", expected="auto, cpu, cuda or mps", got=repr(device), hint="device='auto'"
        )
    accelerator = Accelerator(cpu=device == "cpu")
    if accelerator.num_processes > 1:
        raise ConfigError(
            "starting the training loop",
            expected="one process",
            got=f"{accelerator.num_processes} processes",
            hint="start it without `accelerate launch` or `torchrun`",
        )
    if device not in ("auto", accelerator.device.type):
        raise ConfigError(
            "choosing a device", expected=f"a {device} device", got=f"only {accelerator.device}", hint="device='auto'"
        )
    return accelerator
