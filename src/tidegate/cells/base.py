"""A cell: its gates, its states, its weights, and the one step that is its equation."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.init import Init, initialise
from tidegate.errors import ConfigError, ShapeError
from tidegate.registry import Registry

State: TypeAlias = Tensor | tuple[Tensor, ...]


class Cell(nn.Module):
    """One recurrent step, `h_t = step(W x_t + b, h_{t-1})`, its weights named and laid out as in `torch.nn`.

    A subclass declares `gates` (storage order) and `states` (the first is the output), and writes `step` from
    the pieces given here: `gate`, `products`, `recurrent`, `linear`, `split` and `candidate`. Whatever
    stabilises training is applied inside those pieces, so no step needs to know of it. States and outputs have
    the weights' dtype, under autocast too.

    `weight_ih` [G·H, I], `weight_hh` [G·H, R], `bias_ih` and `bias_hh` [G·H], with R = `recurrent_size`, H
    unless given. All are drawn from U(−1/√H, 1/√H) as in `torch.nn`; `init` then names what to draw anew.

    The state of a cell with one state is a tensor [B, H]; with several, a tuple of them, in that order.
    The first two arguments of every cell are the input size and the hidden size: `like` relies on it.
    """

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _lent: tuple[nn.Module, dict[str, str]] | None = None
    bias_ih: Tensor | None
    bias_hh: Tensor | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        cell = super().__new__(cls)
        object.__setattr__(cell, "_arguments", (args, kwargs))
        return cell

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        init: Init | None = None,
        recurrent_size: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._check_declaration()
        self.input_size = check_size(self, "input_size", input_size)
        self.hidden_size = check_size(self, "hidden_size", hidden_size)
        self.recurrent_size = (
            hidden_size if recurrent_size is None else check_size(self, "recurrent_size", recurrent_size)
        )
        self.bias = bias
        self.init = init
        self._drawn: list[str] = []
        self._placement: dict[str, Any] = {"device": device, "dtype": dtype}
        rows = len(self.gates) * hidden_size
        self.weight_ih = self.own("weight_ih", rows, input_size)
        self.weight_hh = self.own("weight_hh", rows, self.recurrent_size)
        if bias:
            self.bias_ih = self.own("bias_ih", rows)
            self.bias_hh = self.own("bias_hh", rows)
        else:
            self.register_parameter("bias_ih", None)
            self.register_parameter("bias_hh", None)
        initialise(self, init)

    def own(self, name: str, *shape: int) -> nn.Parameter:
        """Register a parameter that this cell draws from U(−1/√H, 1/√H), now and on `reset_parameters`."""
        parameter = nn.Parameter(torch.empty(*shape, **self._placement))
        self.register_parameter(name, parameter)
        self._drawn.append(name)
        self._draw(parameter)
        return parameter

    def reset_parameters(self) -> None:
        """Draw every parameter anew: uniform as in `torch.nn`, then what `init` names."""
        for name in self._drawn:
            self._draw(getattr(self, name))
        initialise(self, self.init)

    @classmethod
    def registered(cls) -> str:
        """Return the name this class has in `CELLS`, by which models know it; one without a name gets its own."""
        for name, known in CELLS.items():
            if known is cls:
                return name
        CELLS.add(cls.__name__)(cls)
        return cls.__name__

    def like(self, input_size: int, hidden_size: int) -> Self:
        """Return a new cell of this kind and these options, with its own fresh parameters.

        Raises `ConfigError` when this cell's weights are not plain parameters of its own (weight norm, pruning):
        a new cell would be without.
        """
        for name in self._drawn:
            if name not in self._parameters:
                raise ConfigError(
                    "building another cell like this one",
                    expected=f"{name} to be a plain parameter of {type(self).__name__}",
                    got="a weight that is computed, or another module's",
                    hint=f"build the layer first, then parametrize {name} of each of its cells",
                )
        args, kwargs = self._arguments
        sizes = (self.input_size, self.hidden_size)
        if args[:2] != sizes[: len(args)]:
            raise ConfigError(
                "building another cell like this one",
                expected=f"{type(self).__name__}(input_size, hidden_size, …), its sizes {sizes} first",
                got=f"{args[:2]} as the first arguments",
                hint="put the cell's own arguments behind the sizes",
            )
        options = copy.deepcopy({k: v for k, v in kwargs.items() if k not in ("input_size", "hidden_size")})
        cell = type(self)(input_size, hidden_size, *copy.deepcopy(args[2:]), **options)
        placed = dict([*self.named_parameters(), *self.named_buffers()])
        for name, tensor in (*cell.named_parameters(), *cell.named_buffers()):
            like = placed.get(name, self.weight_hh if isinstance(tensor, nn.Parameter) else tensor)
            tensor.data = tensor.data.to(self.weight_hh.device, like.dtype)
        return cell

    def lend(self, owner: nn.Module, suffix: str) -> None:
        """Give the weights to `owner`, registered as `name + suffix`; this cell reads them there from now on."""
        names = {name: name + suffix for name in self._drawn}
        for name, theirs in names.items():
            owner.register_parameter(theirs, self._parameters.pop(name))
        object.__setattr__(self, "_lent", (owner, names))

    @property
    def is_lent(self) -> bool:
        """Whether the weights belong to a layer that keeps them under names of its own."""
        return self._lent is not None

    def __getattr__(self, name: str) -> Any:
        lent = self.__dict__.get("_lent")
        if lent is not None and name in lent[1]:
            return getattr(lent[0], lent[1][name])
        return super().__getattr__(name)

    def linear(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `weight v + bias` in the weight's dtype, also where autocast computes it in a shorter one."""
        return F.linear(v, weight, bias).to(weight.dtype)

    def project(self, x: Tensor) -> Tensor:
        """Return `W_ih x + b_ih`, the inputs' part of every gate: [B, T, I] -> [B, T, G·H] in one product."""
        return self.linear(x, self.weight_ih, self.bias_ih)

    def step(self, x: Tensor, *states: Tensor) -> State:  # noqa: ARG002
        """Return the new states from the projected input `x` [B, G·H] and the states [B, H]."""
        named = ", ".join(self.states)
        raise NotImplementedError(f"{type(self).__name__} must define step(self, x, {named})")

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        """Return `v` [B, G·H] as one [B, H] for each gate, in the order of `gates`."""
        return v.chunk(len(self.gates), -1)

    def gate(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """Return each gate before its activation, [B, H]: projected input + `W_hh h + b_hh`."""
        return self.split(x + self.linear(h, self.weight_hh, self.bias_hh))

    def products(self, x: Tensor, h: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the two parts of every gate apart: the projected input, and `W_hh h + b_hh`."""
        return self.split(x), self.split(self.linear(h, self.weight_hh, self.bias_hh))

    def recurrent(self, name: str, v: Tensor, *, bias: bool = True) -> Tensor:
        """Return one gate's product inside the step, `W_hh[name] v + b_hh[name]`, [B, H]."""
        rows = self.rows(name)
        b = self.bias_hh[rows] if bias and self.bias_hh is not None else None
        return self.linear(v, self.weight_hh[rows], b)

    def recurrent_bias(self, name: str) -> Tensor | float:
        """Return `b_hh[name]` [H], for a step that must add it apart from the product; 0.0 without bias."""
        return 0.0 if self.bias_hh is None else self.bias_hh[self.rows(name)]

    def rows(self, name: str) -> slice:
        """Return the rows of `weight_ih`, `weight_hh` and the biases that belong to one gate."""
        start = self.gates.index(name) * self.hidden_size
        return slice(start, start + self.hidden_size)

    def candidate(self, v: Tensor) -> Tensor:
        """Return the candidate that a step is about to write into its state."""
        return v

    def readout(self, outputs: Tensor) -> Tensor:
        """Return what the layer gives out for its outputs [..., R]; the state is not affected."""
        return outputs

    @property
    def output_size(self) -> int:
        """The width of what `readout` returns."""
        return self.recurrent_size

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The width of each state, in the order of `states`."""
        return (self.recurrent_size,) + (self.hidden_size,) * (len(self.states) - 1)

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Return the state before the first step, zeros [batch, H] for each of `states`."""
        like = self.weight_hh
        device, dtype = device or like.device, dtype or like.dtype
        return self.pack(tuple(torch.zeros(batch, size, device=device, dtype=dtype) for size in self.state_sizes))

    def pack(self, states: tuple[Tensor, ...]) -> State:
        """Return states as users see them: a tensor when there is one, a tuple when there are more."""
        return states[0] if len(self.states) == 1 else states

    def unpack(self, state: State) -> tuple[Tensor, ...]:
        """Return a user's state as a tuple, one tensor [B, H] for each of `states`."""
        return (state,) if isinstance(state, Tensor) else tuple(state)

    def advance(self, x: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the states after one step on the projected input `x` [B, G·H], in the dtype of those before.

        Raises `ShapeError` when `step` does not give one state for each before it, in the same shape.
        """
        try:
            after = self.step(x, *states)
        except ValueError as error:
            if "to unpack" not in str(error):
                raise
            raise self._misfit("to unpack what the pieces give, one tensor for each gate", str(error)) from error
        new = (after,) if isinstance(after, Tensor) else after
        if not isinstance(new, tuple) or [_shape(a) for a in new] != [b.shape for b in states]:
            raise self._misfit(f"to give {_shown(states)}", _shown(after))
        return tuple(a.to(b.dtype) for a, b in zip(new, states, strict=True))

    def _misfit(self, expected: str, got: str) -> ShapeError:
        return ShapeError(
            f"one step of {type(self).__name__}",
            expected=f"step {expected}",
            got=got,
            hint=f"its gates are {', '.join(self.gates)}, its states {', '.join(self.states)}",
        )

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run one step on raw input `x` [B, I]; return the output and the new state."""
        if x.dim() != 2 or x.shape[1] != self.input_size:
            raise ShapeError(
                f"one step of {type(self).__name__}",
                expected=f"input of shape [B, {self.input_size}]",
                got=f"shape {list(x.shape)}",
                hint="give one step; Recurrent(cell) runs whole sequences",
            )
        if state is None:
            state = self.initial_state(x.shape[0], device=x.device)
        states = self.advance(self.project(x), self.unpack(state))
        return self.readout(states[0]), self.pack(states)

    def native(self) -> str | None:
        """Return the name of torch's kernel that computes exactly this cell (`"lstm"`, …), or None."""
        return None

    def extra_repr(self) -> str:
        args, kwargs = self._arguments
        return ", ".join([*map(_shown, args), *(f"{k}={_shown(v)}" for k, v in kwargs.items())])

    def _draw(self, parameter: Tensor) -> None:
        bound = self.hidden_size**-0.5
        nn.init.uniform_(parameter, -bound, bound)

    def _check_declaration(self) -> None:
        for noun, names in (("gates", self.gates), ("states", self.states)):
            fine = isinstance(names, tuple) and all(isinstance(n, str) for n in names)
            if not fine or not names or len(set(names)) != len(names):
                raise ConfigError(
                    f"building a {type(self).__name__} cell",
                    expected=f"{noun}, a tuple of different names, on the class",
                    got=repr(names),
                    hint=f'{noun} = ("update", "candidate")' if noun == "gates" else 'states = ("h",)',
                )


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _shown(value: object) -> str:
    """Return `value` for a message, tensors by their shape."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))})"
    return f"{type(value).__name__}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def check_size(owner: object, name: str, size: object) -> int:
    """Return `size`, or raise `ConfigError` unless it is a positive integer."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected=f"{name} to be a positive integer",
            got=f"{size!r} ({type(size).__name__})",
            hint=f"{name}=64",
        )
    return size


CELLS: Registry[type[Cell]] = Registry("cell")
