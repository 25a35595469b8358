"""Devices and processes. What is chosen depends on what was asked and what is there, never on an earlier training."""

from __future__ import annotations

import os

import torch

from tidegate.errors import ConfigError


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
