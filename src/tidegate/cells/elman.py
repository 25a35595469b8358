"""The vanilla recurrent network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.cells.base import CELLS, Cell
from tidegate.cells.options import check_size
from tidegate.errors import ConfigError
from tidegate.registry import Registry

Activation: TypeAlias = Callable[[Tensor], Tensor]

ACTIVATIONS: Registry[Activation] = Registry("activation")
for _name, _function in {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
}.items():
    ACTIVATIONS.add(_name)(_function)


@CELLS.add("rnn")
class Elman(Cell):
    """Elman's simple recurrent network: `h' = f(W_ih x + b_ih + W_hh h + b_hh)`.

    `activation` f: a name (tanh, relu, leaky_relu with slope 0.01, sigmoid, gelu) or a callable on tensors.
    With `output_size` O the cell also has an output layer, `y = V h + b_y`, with V `weight_ho` [O, H] and b_y
    `bias_ho` [O]; the layer then gives out y, and the state stays h.

    Source: Elman 1990, Finding Structure in Time. Deviations: two bias vectors, as in `torch.nn`; the output
    layer has no activation (the paper's is logistic): the loss or the next layer brings its own.
    """

    gates = ("n",)

    bias_ho: Tensor | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        activation: str | Activation = "tanh",
        output_size: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(input_size, hidden_size, **options)
        self.f = activation_of(type(self).__name__, activation)
        self._name = activation if isinstance(activation, str) else None
        self._output_size = None if output_size is None else check_size(self, "output_size", output_size)
        if output_size is not None:
            self.weight_ho = self.own("weight_ho", output_size, hidden_size)
            if self.bias:
                self.own("bias_ho", output_size)
            else:
                self.register_parameter("bias_ho", None)

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        (n,) = self.gate(x, h)
        return self.candidate(self.f(n))

    def readout(self, outputs: Tensor) -> Tensor:
        if self._output_size is None:
            return outputs
        return self.linear(outputs, self.weight_ho, self.bias_ho)

    @property
    def reads_out(self) -> bool:
        return self._output_size is not None or type(self).readout is not Elman.readout

    @property
    def output_size(self) -> int:
        return self._output_size or self.hidden_size

    @property
    def activation(self) -> str | Activation:
        """f as it was given: its name, or the callable."""
        return self._name or self.f

    def native(self) -> str | None:
        kernels = {"tanh": "rnn_tanh", "relu": "rnn_relu"}
        return kernels.get(self._name or "") if type(self) is Elman and not self.altered else None


def activation_of(owner: str, activation: str | Activation) -> Activation:
    """Return the function that `activation` names or is, or raise `ConfigError` in the name of `owner`."""
    if isinstance(activation, str):
        return ACTIVATIONS[activation]
    if isinstance(activation, type) or not callable(activation):
        raise ConfigError(
            f"building {owner}",
            expected="activation to be a name or a function of a tensor",
            got=repr(activation),
            hint=f"one of {', '.join(ACTIVATIONS)}",
        )
    return activation
