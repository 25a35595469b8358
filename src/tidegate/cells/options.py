"""What a cell is built with, checked."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TypeGuard

from torch import Tensor

from tidegate.errors import ConfigError

_TAKEN = frozenset({"x", "state", "lengths", "resets"})
"""What a layer's call takes beside what its cells read."""

_EXAMPLES = {"layers": 2, "heads": 4, "width": 3, "kernel_size": 3, "dilation": 1, "window": 8}
"""Sizes to try that are not those of a layer."""


def check_size(owner: object, name: str, size: object) -> int:
    """Return `size`, or raise `ConfigError` unless it is a positive integer."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected=f"{name} to be a positive integer",
            got=f"{size!r} ({type(size).__name__})",
            hint=f"{name}={_EXAMPLES.get(name, 64)}",
        )
    return size


def choice(owner: object, name: str, given: str, known: tuple[str, ...]) -> str:
    """Return `given`, or raise `ConfigError` unless it is one of `known`."""
    if given not in known:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected=f"{name} to be one of {', '.join(map(repr, known))}",
            got=repr(given),
            hint=f"{name}={known[0]!r}",
        )
    return given


def check_steps(owner: object, name: str, steps: object) -> int:
    """Return `steps`, or raise `ConfigError` unless it is a number of steps, 0 for none."""
    if steps is False or (isinstance(steps, int) and steps == 0):
        return 0
    return check_size(owner, name, steps)


def check_same_at_every_step(doing: str, batch_norm: int) -> None:
    """Raise `ConfigError` where batch norm tells steps apart, and nobody says which one this is."""
    if batch_norm > 1:
        raise ConfigError(
            doing,
            expected="cells that do the same at every step",
            got=f"batch_norm={batch_norm}, with statistics of each step's own",
            hint="give the whole sequence, or train with batch_norm=1, layer_norm=True or rms_norm=True",
        )


def one_norm(owner: object, *, batch_norm: object, **norms: object) -> None:
    """Raise `ConfigError` where more than one norm is asked for, or one, `batch_norm` apart, by other than True."""
    check_flags(f"building {type(owner).__name__}", **norms)
    norms["batch_norm"] = batch_norm
    asked = [f"{name}={given}" for name, given in norms.items() if given]
    if len(asked) > 1:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected="one norm inside the recurrence at most",
            got=", ".join(asked),
            hint=f"{asked[0]} alone",
        )


def check_flags(doing: str, **flags: object) -> None:
    """Raise `ConfigError` unless each is True or False, or a number or an array's entry that equals one."""
    for name, given in flags.items():
        if isinstance(given, Tensor | Sequence) or given not in (False, True):
            raise ConfigError(doing, expected=f"{name} to be True or False", got=repr(given), hint=f"{name}=True")


def check_declaration(owner: object, **names: object) -> None:
    """Raise `ConfigError` unless each is a tuple of different names, as a cell's class declares them."""
    for noun, given in names.items():
        fine = isinstance(given, tuple) and all(isinstance(n, str) for n in given) and len(set(given)) == len(given)
        if not fine or not given:
            raise ConfigError(
                f"building a {type(owner).__name__} cell",
                expected=f"{noun}, a tuple of different names, on the class",
                got=repr(given),
                hint=f'{noun} = ("update", "candidate")' if noun == "gates" else 'states = ("h",)',
            )


def check_step(owner: object, states: Sequence[str], inputs: Sequence[str]) -> None:
    """Raise `ConfigError` unless a cell's step takes the projected input, its states, and what else it reads."""
    if not isinstance(inputs, tuple) or _TAKEN & set(inputs):
        raise ConfigError(
            f"building a {type(owner).__name__} cell",
            expected=f"inputs, a tuple of names that layers have no other use for ({', '.join(sorted(_TAKEN))})",
            got=repr(inputs),
            hint='inputs = ("elapsed",)',
        )
    step = signature(owner.step)  # type: ignore[attr-defined]
    try:
        step.bind(*[None] * (1 + len(states)), **dict.fromkeys(inputs))
    except TypeError as error:
        takes = ", ".join(["self", "x", *states, *(["*", *inputs] if inputs else [])])
        raise ConfigError(
            f"building a {type(owner).__name__} cell",
            expected=f"step({takes}), for its states {', '.join(states)}",
            got=f"step({', '.join(['self', *map(str, step.parameters.values())])}): {error}",
            hint="name what step takes, or declare `states` and `inputs` as they are",
        ) from None


def shown(value: object) -> str:
    """Return `value` for a message, tensors by their shape."""
    if isinstance(value, tuple | list):
        each = ", ".join(map(shown, value))
        return f"({each})" if isinstance(value, tuple) else f"[{each}]"
    return f"{type(value).__name__}{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a number, NaN left out."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def probability(doing: str, rate: object) -> float:
    """Return `rate`, or raise `ConfigError` unless it is a probability."""
    if not is_number(rate) or not 0 <= rate <= 1:
        raise ConfigError(doing, expected="dropout to be a probability, 0 to 1", got=repr(rate), hint="dropout=0.2")
    return float(rate)
