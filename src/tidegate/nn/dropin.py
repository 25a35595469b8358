"""`torch.nn.RNN`, `GRU` and `LSTM`: the same calls, weights and results, with everything `Recurrent` adds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from tidegate import cells
from tidegate.cells.base import Cell
from tidegate.cells.elman import Activation
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.states import StackState, batch_of_one, each_tensor


class TorchNamed(Recurrent):
    """A `Recurrent` that owns its cells' weights, under `torch.nn`'s names and in `torch.nn`'s order.

    `weight_ih_l0`, `weight_hh_l0_reverse`, … are parameters of the layer itself; the cells read them there, so
    whatever replaces one (assignment, pruning, weight norm, `functional_call`) is what the layer runs with.
    A 2-D input is one sequence without a batch axis, as in `torch.nn`.

    Dropout masks are `torch.nn`'s at the same seed, except under `torch.compile` with rows of unequal lengths.
    """

    def __init__(self, cell: Cell, num_layers: int, **options: Any) -> None:
        if "layers" in options:
            raise ConfigError(
                f"building {type(self).__name__}",
                expected="num_layers=, torch.nn's name",
                got=f"layers={options['layers']!r}",
                hint=f"num_layers={options['layers']!r}",
            )
        super().__init__(cell, layers=num_layers, **options)
        self.hidden_size = cell.hidden_size
        self.bias = cell.bias
        self.proj_size: int = getattr(cell, "proj_size", 0)
        if self.dropout and self.layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={self.dropout} and num_layers=1",
                stacklevel=3,
            )
        self._names: list[list[str]] = []
        for index, each in enumerate(self._cells):
            layer, backward = divmod(index, self.directions)
            before = len(self._parameters)
            each.lend(self, f"_l{layer}{'_reverse' if backward else ''}")
            self._names.append(list(self._parameters)[before:])

    @property
    def num_layers(self) -> int:
        return self.layers

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights of each layer and direction, in `torch.nn`'s order."""
        return [[getattr(self, name) for name in names] for names in self._names]

    def flatten_parameters(self) -> None:
        """Do nothing: the weights stay apart. On CUDA, cuDNN gathers them into one copy at every call."""

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: StackState | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, StackState]:
        """Run over `input` [T, B, I] ([B, T, I] if `batch_first`), [T, I] or packed; return output and state."""
        if isinstance(input, Tensor) and input.dim() == 2:
            return self._forward_single(input, hx, lengths, resets)
        return super().forward(input, hx, lengths=lengths, resets=resets)

    def _forward_single(
        self, x: Tensor, hx: StackState | None, lengths: object, resets: object
    ) -> tuple[Tensor, StackState]:
        if lengths is not None or resets is not None:
            raise ShapeError(
                f"running {type(self).__name__}",
                expected="a batch axis beside lengths= and resets=",
                got=f"input of shape {list(x.shape)}",
                hint="input[None], or leave them out",
            )
        state = None if hx is None else batch_of_one(self._cells, hx)
        batch_axis = 0 if self.batch_first else 1
        y, state = super().forward(x.unsqueeze(batch_axis), state)
        assert isinstance(y, Tensor)
        return y.squeeze(batch_axis), each_tensor(lambda s: s.squeeze(-2), state)


def _taken_by_cells(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of `options` what is a cell's, and return it."""
    names = signature(cells.Cell.__init__).parameters.keys() - {"self", "recurrent_size"}
    return {name: options.pop(name) for name in names & options.keys()}


class RNN(TorchNamed):
    """`torch.nn.RNN`: the same arguments, weights and results. See `cells.Elman` for the equation.

    `nonlinearity` may be any activation `Elman` knows, or a function of a tensor. Keywords beyond torch's are
    `Recurrent`'s and `Cell`'s: `layer_norm`, `zoneout`, `init`, ….
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str | Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        inside = _taken_by_cells(options)
        cell = cells.Elman(
            input_size, hidden_size, activation=nonlinearity, bias=bias, device=device, dtype=dtype, **inside
        )
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )
        self.nonlinearity = nonlinearity
        name = nonlinearity if isinstance(nonlinearity, str) else getattr(nonlinearity, "__name__", "module")
        self.mode = f"RNN_{name.upper()}"


class GRU(TorchNamed):
    """`torch.nn.GRU`: the same arguments, weights and results. See `cells.GRU` for the equations.

    Keywords beyond torch's are `Recurrent`'s and `Cell`'s: `layer_norm`, `zoneout`, `init`, ….
    """

    mode = "GRU"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        inside = _taken_by_cells(options)
        cell = cells.GRU(input_size, hidden_size, bias=bias, device=device, dtype=dtype, **inside)
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )


class LSTM(TorchNamed):
    """`torch.nn.LSTM`: the same arguments, weights and results. See `cells.LSTM` for the equations.

    Keywords beyond torch's are `Recurrent`'s and `Cell`'s: `layer_norm`, `zoneout`, `init`, ….
    """

    mode = "LSTM"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        inside = _taken_by_cells(options)
        cell = cells.LSTM(input_size, hidden_size, proj_size=proj_size, bias=bias, device=device, dtype=dtype, **inside)
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )
