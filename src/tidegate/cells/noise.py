"""What a run gives its steps to read, and the noise of a recurrence: its rates, and what is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from tidegate.compile import drawing
from tidegate.errors import ConfigError

Rate: TypeAlias = float | Sequence[float]


class Given(NamedTuple):
    """What a step reads beside its projected input and states.

    `rows` [B, ·] a sequence, `steps` [B, T, ·] a step, `whole` what is one for all rows and steps.
    """

    rows: dict[str, Tensor]
    steps: dict[str, Tensor]
    whole: dict[str, Tensor]

    def at(self, t: int) -> dict[str, Tensor]:
        """Return what step t reads, by name."""
        return {**self.whole, **self.rows, **{name: each[:, t] for name, each in self.steps.items()}}

    def also(self, other: Given) -> Given:
        """Return what is in either."""
        return Given(*({**mine, **theirs} for mine, theirs in zip(self, other, strict=True)))


NOTHING = Given({}, {}, {})


class Now(NamedTuple):
    """Where a run stands: the number of the first step at hand, and which rows still run, [B, 1] or [B, T, 1]."""

    first: int
    real: Tensor | None


class Masks(NamedTuple):
    """What a run draws, by name: width and rate of the masks of a sequence and of a step, shape and rate of others."""

    rows: dict[str, tuple[int, float]]
    steps: dict[str, tuple[int, float]]
    whole: dict[str, tuple[torch.Size, float]]


@dataclass(frozen=True)
class Noise:
    """The rates at which a cell in training drops or keeps, each 0 to 1.

    `zoneout`, one for each state: units that keep their previous value (Krueger et al. 2016, equation 3).
    `inputs` and `hidden`: variational dropout, one mask a run for each sequence (or for a window, where it is read in
    windows) on the input and on what enters recurrent products (Gal & Ghahramani 2016, equation 7, tied: one for all
    gates).
    `candidate`: recurrent dropout, a new mask each step on the candidate (Semeniuta et al. 2016, equation 15).
    `weights`: DropConnect, one mask a run on `weight_hh` (Merity et al. 2018, 1708.02182, section 2).
    """

    zoneout: tuple[float, ...]
    inputs: float
    hidden: float
    candidate: float
    weights: float

    @property
    def draws(self) -> bool:
        """Whether training draws anything."""
        return any((*self.zoneout, self.inputs, self.hidden, self.candidate, self.weights))

    def masks(
        self, states: Sequence[tuple[str, int]], inputs: int, width: int, candidate: int, weights: torch.Size
    ) -> Masks:
        """Return the masks that a run in training draws.

        `states` are names and widths; `inputs`, what is read; `width`, what recurrent products read; `candidate`, H;
        `weights`, the shape of `weight_hh`.
        """
        rows = {"input_mask": (inputs, self.inputs), "hidden_mask": (width, self.hidden)}
        steps = {"candidate_mask": (candidate, self.candidate)}
        for rate, (name, size) in zip(self.zoneout, states, strict=True):
            steps[f"kept_{name}"] = (size, rate)
        whole = {"weight_mask": (weights, self.weights)}
        return Masks(*({n: m for n, m in masks.items() if m[1]} for masks in (rows, steps, whole)))  # type: ignore[arg-type]


def draw(name: str, rate: float, like: Tensor, *shape: int) -> Tensor:
    """Draw a mask from torch's random state: 1 where a unit keeps its old value, or dropout's 0 and 1/(1 − rate)."""
    if name.startswith("kept_"):
        return _at(rate, 1.0, like, shape)
    return _at(1 - rate, 1 / max(1 - rate, 1e-7), like, shape)


def _at(rate: float, number: float, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Draw a number at this rate, else zeros."""
    if rate in (0, 1) or not _is_plain(like):
        return like.new_empty(shape).bernoulli_(rate).mul_(number)
    if like.dtype is torch.float32:
        return drawing.draw(rate, number, shape)
    return drawing.draw(rate, 1.0, shape).to(like.dtype).mul_(number)


def _is_plain(like: Tensor) -> bool:
    """Whether a tensor is on the CPU, and nothing follows what is done with it: no graph is made, nothing mapped."""
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    mapped = torch._C._functorch.peek_interpreter_stack() is not None
    return type(like) in (Tensor, torch.nn.Parameter) and like.is_cpu and not watched and not mapped


def rates(owner: str, name: str, rate: Rate, count: int) -> tuple[float, ...]:
    """Return `rate` as `count` probabilities, one number standing for all, or raise `ConfigError`."""
    given = tuple(rate) if isinstance(rate, Sequence) and not isinstance(rate, str) else (rate,) * count
    numbers = [r for r in given if isinstance(r, int | float) and not isinstance(r, bool) and 0 <= r <= 1]
    if len(numbers) != count or len(given) != count:
        raise ConfigError(
            f"building {owner}",
            expected=f"{name} to be a probability, 0 to 1" + (f", or {count} of them" if count > 1 else ""),
            got=repr(rate),
            hint=f"{name}=0.1",
        )
    return tuple(float(r) for r in numbers)
