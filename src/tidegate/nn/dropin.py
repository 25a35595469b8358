"""`torch.nn.RNN`, `GRU` and `LSTM`: the same calls, weights and results, with everything `Recurrent` adds."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate import cells
from tidegate.cells.base import Cell
from tidegate.cells.init import Init
from tidegate.errors import ShapeError
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.states import StackState

WEIGHT = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d+)(_reverse)?")
CELL_WEIGHT = re.compile(r"cells\.(\d+)\.((weight|bias)_(ih|hh|hr))")


class TorchNamed(Recurrent):
    """A `Recurrent` whose weights have `torch.nn`'s names, as attributes and in the state dict.

    `weight_ih_l0`, `weight_hh_l0_reverse`, … read and assign the cells' own parameters. `named_parameters` has
    the modules' names, `cells.0.weight_ih`. A 2-D input is one sequence without a batch axis, as in `torch.nn`.
    """

    def __init__(self, cell: Cell, num_layers: int, **options: Any) -> None:
        super().__init__(cell, layers=num_layers, **options)
        self.hidden_size = cell.hidden_size
        self.bias = cell.bias
        self.proj_size: int = getattr(cell, "proj_size", 0)
        self.register_state_dict_post_hook(_to_torch_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_torch_names)  # type: ignore[no-untyped-call]

    @property
    def num_layers(self) -> int:
        return self.layers

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights of each layer and direction, in `torch.nn`'s order."""
        return [
            [p for name, p in cell.named_parameters() if CELL_WEIGHT.fullmatch(f"cells.0.{name}")]
            for cell in self.cells
        ]

    def flatten_parameters(self) -> None:
        """Do nothing: the weights need no flat copy."""

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: StackState | None = None,
        *,
        lengths: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, StackState]:
        """Run over `input` [T, B, I] ([B, T, I] if `batch_first`), [T, I] or packed; return output and state."""
        if isinstance(input, Tensor) and input.dim() == 2:
            return self._forward_single(input, hx, lengths, resets)
        return super().forward(input, hx, lengths=lengths, resets=resets)

    def _forward_single(
        self, x: Tensor, hx: StackState | None, lengths: Tensor | None, resets: Tensor | None
    ) -> tuple[Tensor, StackState]:
        if lengths is not None or resets is not None:
            raise ShapeError(
                f"running {type(self).__name__}",
                expected="a batch axis beside lengths= and resets=",
                got=f"input of shape {list(x.shape)}",
                hint="input[None], or leave them out",
            )
        batch_axis = 0 if self.batch_first else 1
        state = None if hx is None else _each(lambda s: s.unsqueeze(-2), hx)
        y, state = super().forward(x.unsqueeze(batch_axis), state)
        assert isinstance(y, Tensor)
        return y.squeeze(batch_axis), _each(lambda s: s.squeeze(-2), state)

    def __getattr__(self, name: str) -> Any:
        found = WEIGHT.fullmatch(name)
        if found is None:
            return super().__getattr__(name)
        return getattr(*self._place(found))

    def __setattr__(self, name: str, value: Any) -> None:
        found = WEIGHT.fullmatch(name)
        if found is None:
            super().__setattr__(name, value)
        else:
            setattr(*self._place(found), value)

    def _place(self, found: re.Match[str]) -> tuple[nn.Module, str]:
        index = int(found[3]) * self.directions + bool(found[4])
        if index >= len(self.cells) or (found[4] and not self.bidirectional):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {found[0]!r}")
        return self.cells[index], f"{found[1]}_{found[2]}"


class RNN(TorchNamed):
    """`torch.nn.RNN`: the same arguments, weights and results. See `cells.Elman` for the equation.

    `nonlinearity` may be any activation `Elman` knows. Keywords beyond torch's are `Recurrent`'s, and `init`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        init: Init | None = None,
        **options: Any,
    ) -> None:
        cell = cells.Elman(
            input_size, hidden_size, activation=nonlinearity, bias=bias, init=init, device=device, dtype=dtype
        )
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"


class GRU(TorchNamed):
    """`torch.nn.GRU`: the same arguments, weights and results. See `cells.GRU` for the equations.

    Keywords beyond torch's are `Recurrent`'s, and `init`.
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
        *,
        init: Init | None = None,
        **options: Any,
    ) -> None:
        cell = cells.GRU(input_size, hidden_size, bias=bias, init=init, device=device, dtype=dtype)
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )


class LSTM(TorchNamed):
    """`torch.nn.LSTM`: the same arguments, weights and results. See `cells.LSTM` for the equations.

    Keywords beyond torch's are `Recurrent`'s, and `init`.
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
        *,
        init: Init | None = None,
        **options: Any,
    ) -> None:
        cell = cells.LSTM(
            input_size, hidden_size, proj_size=proj_size, bias=bias, init=init, device=device, dtype=dtype
        )
        super().__init__(
            cell, num_layers, batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, **options
        )


def _to_torch_names(layer: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    assert isinstance(layer, TorchNamed)
    for key in [k for k in state if k.startswith(prefix)]:
        found = CELL_WEIGHT.fullmatch(key[len(prefix) :])
        if found is not None:
            number, backward = divmod(int(found[1]), layer.directions)
            state[f"{prefix}{found[2]}_l{number}{'_reverse' if backward else ''}"] = state.pop(key)


def _from_torch_names(layer: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    assert isinstance(layer, TorchNamed)
    for key in [k for k in state if k.startswith(prefix)]:
        found = WEIGHT.fullmatch(key[len(prefix) :])
        if found is not None:
            index = int(found[3]) * layer.directions + bool(found[4])
            state[f"{prefix}cells.{index}.{found[1]}_{found[2]}"] = state.pop(key)


def _each(change: Callable[[Tensor], Tensor], state: StackState) -> StackState:
    """Return `state` with `change` applied to every tensor in it."""
    if isinstance(state, Tensor):
        return change(state)
    return cast(StackState, tuple(_each(change, part) for part in state))
