"""A cell: its gates, its states, its weights, and the one step that is its equation."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor, nn

from tidegate.cells.init import Init, initialise
from tidegate.cells.noise import NOTHING, Given, Masks, Noise, Rate, draw, rates
from tidegate.cells.options import (
    check_declaration,
    check_same_at_every_step,
    check_size,
    check_step,
    check_steps,
    one_norm,
    shown,
)
from tidegate.cells.pieces import Pieces
from tidegate.cells.statistics import StepStatistics
from tidegate.errors import ConfigError, ShapeError
from tidegate.registry import Registry

State: TypeAlias = Tensor | tuple[Tensor, ...]

Fill: TypeAlias = float | Callable[[Tensor], Any]
"""What a parameter starts as: a number, or a function that fills the tensor in place (one that pickles)."""


_CHANGES = itertools.count(1)


class Cell(Pieces):
    """One recurrent step, `h_t = step(W x_t + b, h_{t-1})`, its weights named and laid out as in `torch.nn`.

    A subclass declares `gates` (storage order) and `states` (the first is the output), and writes `step` from
    the pieces given here: `gate`, `products`, `recurrent`, `linear`, `split`, `candidate` and `normed`. Whatever
    stabilises training is applied inside those pieces, so no step needs to know of it. States and outputs have
    the weights' dtype, under autocast too.

    `weight_ih` [G·H, I], `weight_hh` [G'·H, R], `bias_ih` [G·H] and `bias_hh` [G'·H], with R = `recurrent_size`,
    H unless given, and G' the gates that have a recurrent product: all, unless the class names them in
    `recurrent_gates`; where it names none there is no `weight_hh`. All are drawn from U(−1/√H, 1/√H) as in
    `torch.nn`; `init` then names what to draw anew.

    - `layer_norm`: `LN(W x) + LN(U h) + b` with a gain for each part (`norm_ih`, `norm_hh`), and with gain and
      bias on what a step passes through `normed` (Ba, Kiros & Hinton 2016, equations 20 to 22). A product
      taken gate by gate (`recurrent`) is normalised gate by gate. `rms_norm`: the same with the root of the mean
      square alone, without biases of its own (Zhang & Sennrich 2019, equation 4; ε = 1e-5 under the root).
      `batch_norm`, a number of steps: over the batch's rows, with statistics of each step's own up to that many, and
      gains that start at 0.1; see `cells.statistics.StepStatistics`.
    - `zoneout` (one rate, or one for each state), `variational_dropout` (one rate, or one for the inputs and one for
      the recurrent products), `recurrent_dropout` (on the candidate), `dropconnect` (on `weight_hh`; a cell that has
      none draws nothing): see `cells.noise.Noise`.

    The state of a cell with one state is a tensor [B, H]; with several, a tuple of them, in that order.
    The first two arguments of every cell are the input size and the hidden size: `like` relies on it.

    A step that reads more than its input names it in `inputs` and takes it as keyword arguments, [B, ·] each:
    `elapsed` is [B, 1].
    """

    states: ClassVar[tuple[str, ...]] = ("h",)
    inputs: ClassVar[tuple[str, ...]] = ()

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _lent: tuple[nn.Module, dict[str, str]] | None = None
    changes = 0
    """A number that no other cell has. A new one comes with every attribute set or deleted, copy and conversion."""

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
        layer_norm: bool = False,
        rms_norm: bool = False,
        batch_norm: int = 0,
        zoneout: Rate = 0.0,
        variational_dropout: Rate = 0.0,
        recurrent_dropout: float = 0.0,
        dropconnect: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_declaration(self, gates=self.gates, states=self.states)
        check_step(self, self.states, self.inputs)
        self.input_size = check_size(self, "input_size", input_size)
        self.hidden_size = check_size(self, "hidden_size", hidden_size)
        self.recurrent_size = (
            hidden_size if recurrent_size is None else check_size(self, "recurrent_size", recurrent_size)
        )
        self.bias = bias
        self.init = init
        one_norm(self, layer_norm=layer_norm, rms_norm=rms_norm, batch_norm=batch_norm)
        self.layer_norm, self.rms_norm = layer_norm, rms_norm
        self.batch_norm = check_steps(self, "batch_norm", batch_norm)
        kind = type(self).__name__
        self.noise = Noise(
            rates(kind, "zoneout", zoneout, len(self.states)),
            *rates(kind, "variational_dropout", variational_dropout, 2),
            *rates(kind, "recurrent_dropout", recurrent_dropout, 1),
            *rates(kind, "dropconnect", dropconnect, 1),
        )
        if not self._recurrent:
            self.noise = replace(self.noise, weights=0.0)
        self._bound = {}
        self._drawn: dict[str, Fill | None] = {}
        self._placement: dict[str, Any] = {"device": device, "dtype": dtype}
        rows, recurrent_rows = len(self.gates) * hidden_size, len(self._recurrent) * hidden_size
        self.weight_ih = self.own("weight_ih", rows, input_size, *self.kernel_sizes)
        if recurrent_rows:
            self.own("weight_hh", recurrent_rows, self.recurrent_size, *self.kernel_sizes)
        for name, size in (("bias_ih", rows), ("bias_hh", recurrent_rows)):
            if bias and size:
                self.own(name, size)
            else:
                self.register_parameter(name, None)
        if self.normalises:
            self._own_norms(rows, recurrent_rows)
        initialise(self, init)

    def _own_norms(self, rows: int, recurrent_rows: int) -> None:
        sizes = {"ih": rows, "hh": recurrent_rows, **dict.fromkeys(self.normed_values, self.hidden_size)}
        sizes = {name: size for name, size in sizes.items() if size}
        for name, size in sizes.items():
            self.own(f"norm_{name}", size, fill=0.1 if self.batch_norm else 1.0)
        for name in () if self.rms_norm else self.normed_values:
            self.own(f"norm_{name}_bias", self.hidden_size, fill=0.0)
        if self.batch_norm:
            each = {n: StepStatistics(self.batch_norm, size, **self._placement) for n, size in sizes.items()}
            self.statistics = nn.ModuleDict(each)

    def own(self, name: str, *shape: int, fill: Fill | None = None) -> nn.Parameter:
        """Register a parameter that is U(−1/√H, 1/√H), or what `fill` says, now and on `reset_parameters`."""
        parameter = nn.Parameter(torch.empty(*shape, **self._placement))
        self.register_parameter(name, parameter)
        self._drawn[name] = fill
        self._draw(name)
        return parameter

    def reset_parameters(self) -> None:
        """Draw every parameter anew: uniform as in `torch.nn`, then what `init` names."""
        for name in self._drawn:
            self._draw(name)
        for module in self.modules():
            if isinstance(module, StepStatistics):
                module.reset()
        initialise(self, self.init)

    @classmethod
    def registered(cls) -> str:
        """Return the name this class has in `CELLS`, by which models know it; one without a name gets its own."""
        return CELLS.name_of(cls)

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
            like = placed.get(name, self.weight_ih if isinstance(tensor, nn.Parameter) else tensor)
            tensor.data = tensor.data.to(self.weight_ih.device, like.dtype)
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

    @property
    def owner(self) -> nn.Module | None:
        """The layer that the weights belong to, where it is not the cell itself."""
        return None if self._lent is None else self._lent[0]

    def __getattr__(self, name: str) -> Any:
        own = self.__dict__.get("_parameters")
        if own is not None and name in own:
            return own[name]
        lent = self.__dict__.get("_lent")
        if lent is not None and name in lent[1]:
            return getattr(lent[0], lent[1][name])
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        new = name != "training" or value is not self.training
        super().__setattr__(name, value)
        if new:
            self._count()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        self._count()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._count()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._count()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert the parameters, as `to` does, which is a change too."""
        self._count()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _count(self) -> None:
        self.__dict__["changes"] = next(_CHANGES)

    def step(self, x: Tensor, *states: Tensor) -> State:  # noqa: ARG002
        """Return the new states from the projected input `x` [B, G·H] and the states [B, H]."""
        named = ", ".join(self.states)
        raise NotImplementedError(f"{type(self).__name__} must define step(self, x, {named})")

    def readout(self, outputs: Tensor) -> Tensor:
        """Return what the layer gives out for its outputs [..., R]; the state is not affected."""
        return outputs

    @property
    def reads_out(self) -> bool:
        """Whether `readout` may return anything but what it is given."""
        return type(self).readout is not Cell.readout

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
        like = self.weight_ih
        device, dtype = device or like.device, dtype or like.dtype
        return self.pack(tuple(torch.zeros(batch, size, device=device, dtype=dtype) for size in self.state_sizes))

    def pack(self, states: tuple[Tensor, ...]) -> State:
        """Return states as users see them: a tensor when there is one, a tuple when there are more."""
        return states[0] if len(self.states) == 1 else states

    def unpack(self, state: State) -> tuple[Tensor, ...]:
        """Return a user's state as a tuple, one tensor [B, H] for each of `states`."""
        return (state,) if isinstance(state, Tensor) else tuple(state)

    def masks(self) -> Masks:
        """Return the masks that a run draws; see `Noise`."""
        if not self.training or not self.noise.draws:
            return Masks({}, {}, {})
        sizes = list(zip(self.states, self.state_sizes, strict=True))
        weights = self.weight_hh.shape if self._recurrent else torch.Size((0,))
        return self.noise.masks(sizes, self.input_size, self.recurrent_size, self.hidden_size, weights)

    def draw(self, x: Tensor) -> Given:
        """Draw the noise of one run over `x` [B, T, I] from torch's random state; nothing in evaluation."""
        masks = self.masks()
        if not any(masks):
            return NOTHING
        batch, length = x.shape[:2]
        like = self.weight_ih
        return Given(
            {name: draw(name, rate, like, batch, width) for name, (width, rate) in masks.rows.items()},
            {
                name: draw(name, rate, like, length, batch, width).transpose(0, 1)
                for name, (width, rate) in masks.steps.items()
            },
            {name: draw(name, rate, like, *shape) for name, (shape, rate) in masks.whole.items()},
        )

    def advance(self, x: Tensor, states: tuple[Tensor, ...], given: dict[str, Any] | None = None) -> tuple[Tensor, ...]:
        """Return the states after one step on the projected input `x` [B, G·H], in the dtype of those before.

        `given` holds what `inputs` names, and the noise drawn for this step. Raises `ShapeError` when `step`
        does not give one state for each before it, in the same shape.
        """
        given = given or {}
        with self.bound(given):
            try:
                after = self.step(x, *states, **{name: given[name] for name in self.inputs})
            except ValueError as error:
                if "to unpack" not in str(error):
                    raise
                raise self._misfit("to unpack what the pieces give, one tensor for each gate", str(error)) from error
        new = (after,) if isinstance(after, Tensor) else after
        if not isinstance(new, tuple) or [getattr(a, "shape", None) for a in new] != [b.shape for b in states]:
            raise self._misfit(f"to give {shown(states)}", shown(after))
        kept = tuple(a.to(b.dtype) for a, b in zip(new, states, strict=True))
        return self._zoned_out(kept, states, given) if any(self.noise.zoneout) else kept

    def _zoned_out(
        self, new: tuple[Tensor, ...], old: tuple[Tensor, ...], given: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """Keep units of the old states where drawn; in evaluation, their expectation."""
        after = []
        for name, rate, n, o in zip(self.states, self.noise.zoneout, new, old, strict=True):
            if not rate:
                after.append(n)
            elif self.training:
                after.append(torch.where(given[f"kept_{name}"] != 0, o, n))
            else:
                after.append(torch.lerp(n, o, rate))
        return tuple(after)

    def _misfit(self, expected: str, got: str) -> ShapeError:
        return ShapeError(
            f"one step of {type(self).__name__}",
            expected=f"step {expected}",
            got=got,
            hint=f"its gates are {', '.join(self.gates)}, its states {', '.join(self.states)}",
        )

    def forward(self, x: Tensor, state: State | None = None, **inputs: Tensor) -> tuple[Tensor, State]:
        """Run one step on raw input `x` [B, I] and what `inputs` names; return the output and the new state."""
        if x.dim() != 2 or x.shape[1] != self.input_size:
            raise ShapeError(
                f"one step of {type(self).__name__}",
                expected=f"input of shape [B, {self.input_size}]",
                got=f"shape {list(x.shape)}",
                hint="give one step; Recurrent(cell) runs whole sequences",
            )
        check_same_at_every_step(f"one step of {type(self).__name__}", self.batch_norm)
        if state is None:
            state = self.initial_state(x.shape[0], device=x.device)
        given = {**inputs, **self.draw(x[:, None]).at(0)}
        self.begin()
        with self.bound(given):
            projected = self.project(x)
        states = self.advance(projected, self.unpack(state), given)
        self.settle()
        return self.readout(states[0]), self.pack(states)

    def native(self) -> str | None:
        """Return the name of torch's kernel that computes exactly this cell (`"lstm"`, …), or None."""
        return None

    def extra_repr(self) -> str:
        args, kwargs = self._arguments
        return ", ".join([*map(shown, args), *(f"{k}={shown(v)}" for k, v in kwargs.items())])

    def _draw(self, name: str) -> None:
        bound, fill = self.spread, self._drawn[name]
        with torch.no_grad():
            if fill is None:
                getattr(self, name).uniform_(-bound, bound)
            elif callable(fill):
                fill(getattr(self, name))
            else:
                getattr(self, name).fill_(fill)


CELLS: Registry[type[Cell]] = Registry("cell")
