"""What numbers a step computes with: full precision, or half for products, with the loss scaled where it must be."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from tidegate.errors import ConfigError, TidegateError
from tidegate.train.parallel import in_float32

SHORT = {"bf16": torch.bfloat16, "fp16": torch.float16}

LEAST_SCALE = 2.0**-14
"""Below it gradients do not overflow for their size: something else is wrong."""


class Precision:
    """How one step after another computes in `name`, "float32", "bf16" or "fp16", on a device.

    Weights, the optimizer's state and, as layers have it, states and outputs of recurrences are float32 throughout;
    under `running` products are taken in the shorter type (torch's autocast). In fp16 the loss is multiplied by a scale
    before its gradient is taken, which is divided by it afterwards: where one is not finite the step is left out,
    counted in `skipped`, and the scale halved; after 2,000 steps without that it is doubled (Micikevicius et al. 2018,
    1710.03740, section 3.2; `torch.amp.GradScaler`). `state` is all that decides what comes next, as JSON.

    Deviation: what is skipped may be a step whose loss has overflowed, too. Raises `ConfigError` for a type that the
    device does not have, `TidegateError` once no scale helps.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.device, self.dtype = device, SHORT.get(name)
        if device.type == "cuda" and name == "bf16" and not torch.cuda.is_bf16_supported():
            raise ConfigError(
                "choosing a precision", expected="one that the device has", got=repr(name), hint="precision='fp16'"
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        self.skipped = 0

    def running(self) -> torch.autocast:
        """Let products be taken in the shorter type inside."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None)

    def full(self, prediction: Any) -> Any:
        """Return a prediction in float32, in which losses are computed."""
        return prediction if self.dtype is None else in_float32(prediction)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss that gradients are to be taken of."""
        return self.scaler.scale(loss)

    def unscale(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale; clipping comes after."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer) -> bool:
        """Take the optimizer's step unless a gradient is not finite; return whether it was taken."""
        before = self.scaler.get_scale()
        self.scaler.step(optimizer)
        self.scaler.update()
        taken = self.scaler.get_scale() >= before
        self.skipped += not taken
        if self.scaler.get_scale() < LEAST_SCALE:
            raise TidegateError(
                "training in fp16", expected="finite gradients at some scale of the loss",
                got=f"none down to {LEAST_SCALE:g}", hint="precision='bf16', or a lower learning rate",
            )  # fmt: skip
        return taken

    @property
    def state(self) -> dict[str, Any]:
        return {**self.scaler.state_dict(), "skipped": self.skipped} if self.scaler.is_enabled() else {}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(state)
            self.skipped = state["skipped"]
