"""Named initialisations. Each sets some of a cell's parameters, gate block by gate block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from tidegate.errors import ConfigError
from tidegate.registry import Registry

if TYPE_CHECKING:
    from tidegate.cells.base import Cell

Initialiser: TypeAlias = "Callable[[Cell, tuple[str, ...]], None]"
"""Sets the blocks of the named gates of a cell, in place."""

Init: TypeAlias = "str | Initialiser | Mapping[str, Init] | Sequence[Init]"
"""A name (`"orthogonal"`, `"chrono:784"`), a function, a name for each gate, or several, applied in turn."""

INITIALISERS: Registry[Callable[..., Initialiser]] = Registry("initialisation")

FORGET = ("f", "forget")
INPUT = ("i", "input")


@torch.no_grad()
def initialise(cell: Cell, init: Init | None, gates: tuple[str, ...] | None = None) -> None:
    """Apply `init` to the blocks of `gates` (all of them unless given)."""
    gates = cell.gates if gates is None else gates
    if init is None:
        return
    if isinstance(init, str):
        parse(init)(cell, gates)
    elif isinstance(init, Mapping):
        for name, each in init.items():
            if name not in cell.gates:
                raise ConfigError(
                    f"init= of {type(cell).__name__}",
                    expected=f"gates among {list(cell.gates)}",
                    got=repr(name),
                    hint="gates are named as in the class attribute `gates`",
                )
            initialise(cell, each, (name,))
    elif callable(init):
        init(cell, gates)
    elif isinstance(init, Sequence):
        for each in init:
            initialise(cell, each, gates)
    else:
        raise ConfigError(
            f"init= of {type(cell).__name__}",
            expected="a name, a function, or several",
            got=repr(init),
            hint=f"one of {', '.join(INITIALISERS)}",
        )


def parse(name: str) -> Initialiser:
    """Return the initialiser that `name` or `name:number` means."""
    head, colon, number = name.partition(":")
    factory = INITIALISERS[head]
    try:
        return factory(_finite(number)) if colon else factory()
    except (ValueError, TypeError) as error:
        takes = (factory.__doc__ or "").strip().partition("\n")[0]
        raise ConfigError(
            "reading init=",
            expected="a name, or a name and one number, as in 'chrono:784'",
            got=f"{name!r}: {error}",
            hint=f"what {head!r} takes: {takes}",
        ) from error


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value


def _not_negative(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ConfigError(
            "reading init=", expected=f"a finite {name} of at least 0", got=str(value), hint=f"{name}=1.0"
        )


@INITIALISERS.add("uniform")
def uniform(bound: float | None = None) -> Initialiser:
    """Weights and biases from U(−bound, bound); the cell's `spread` unless given, 1/√H as in `torch.nn`."""
    _not_negative("bound", bound)

    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        limit = cell.spread if bound is None else bound
        for block in (*_blocks(cell, "weight", gates), *_blocks(cell, "bias", gates)):
            block.uniform_(-limit, limit)

    return apply


@INITIALISERS.add("xavier")
def xavier(gain: float = 1.0) -> Initialiser:
    """Glorot & Bengio 2010: weights from U(±gain·√(6/(fan_in + fan_out))), biases 0."""
    _not_negative("gain", gain)
    return _weights(lambda block: nn.init.xavier_uniform_(block, gain))


@INITIALISERS.add("he")
def he() -> Initialiser:
    """He et al. 2015: weights from N(0, 2/fan_in), biases 0."""
    return _weights(lambda block: nn.init.kaiming_normal_(block, nonlinearity="relu"))


@INITIALISERS.add("orthogonal")
def orthogonal(gain: float = 1.0) -> Initialiser:
    """Saxe et al. 2014: recurrent blocks are gain × random orthogonal; inputs as `xavier`, biases 0."""

    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        xavier()(cell, gates)
        for block in _blocks(cell, "weight_hh", gates):
            nn.init.orthogonal_(block, gain)

    return apply


@INITIALISERS.add("identity")
def identity(scale: float = 1.0) -> Initialiser:
    """Le et al. 2015 (IRNN): each recurrent block scale × identity; inputs from N(0, 0.001²), biases 0.

    Of kernels, it is the convolution that changes nothing.
    """

    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        _zero_biases(cell, gates)
        for block in _blocks(cell, "weight_ih", gates):
            block.normal_(0, 0.001)
        for block in _blocks(cell, "weight_hh", gates):
            (nn.init.dirac_ if cell.kernel_sizes else nn.init.eye_)(block).mul_(scale)

    return apply


@INITIALISERS.add("forget")
def forget(value: float = 1.0) -> Initialiser:
    """Gers et al. 2000, Jozefowicz et al. 2015: the forget gate's bias, `bias_ih + bias_hh`, is 1 or `value`."""

    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        name = _forget_gate(cell, gates, "forget")
        _set_bias(cell, name, torch.full((cell.hidden_size,), value))

    return apply


@INITIALISERS.add("chrono")
def chrono(longest: float) -> Initialiser:
    """Tallec & Ollivier 2018: `b_f ~ ln U[1, longest − 1]`, `b_i = −b_f`, for dependencies of `longest` steps.

    A cell without an input gate of its own has only `b_f` set.
    """
    if not 2 <= longest < math.inf:
        raise ValueError(f"longest must be a finite number of at least 2 steps, got {longest}")

    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        name = _forget_gate(cell, gates, "chrono")
        b = torch.empty(cell.hidden_size).uniform_(1, longest - 1).log_()
        _set_bias(cell, name, b)
        for other in set(INPUT) & set(gates):
            _set_bias(cell, other, -b)

    return apply


def _weights(fill: Callable[[Tensor], object]) -> Initialiser:
    def apply(cell: Cell, gates: tuple[str, ...]) -> None:
        _zero_biases(cell, gates)
        for block in _blocks(cell, "weight", gates):
            fill(block)

    return apply


def _blocks(cell: Cell, kind: str, gates: tuple[str, ...]) -> Iterator[Tensor]:
    """Yield views of the gates' rows of every parameter of `kind`: a full name, `"weight"` or `"bias"`."""
    recurrent = cell.gates if cell.recurrent_gates is None else cell.recurrent_gates
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        parameter: Tensor | None = getattr(cell, name, None)
        if name.startswith(kind) and parameter is not None:
            for gate in gates:
                if name.endswith("_ih"):
                    yield parameter[cell.rows(gate)]
                elif gate in recurrent:
                    yield parameter[cell.recurrent_rows(gate)]


def _zero_biases(cell: Cell, gates: tuple[str, ...]) -> None:
    for block in _blocks(cell, "bias", gates):
        block.zero_()


def _forget_gate(cell: Cell, gates: tuple[str, ...], initialisation: str) -> str:
    for name in gates if cell.bias_ih is not None else ():
        if name in FORGET:
            return name
    raise ConfigError(
        f"init={initialisation!r} of {type(cell).__name__}",
        expected="biases, and a forget gate named 'f' or 'forget'",
        got=f"gates {list(gates)}, bias={cell.bias_ih is not None}",
        hint="use it with an LSTM, or leave it out",
    )


def _set_bias(cell: Cell, gate: str, value: Tensor) -> None:
    first, *rest = _blocks(cell, "bias", (gate,))
    first.copy_(value)
    for block in rest:
        block.zero_()
