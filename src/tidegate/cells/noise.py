"""The noise of a recurrence: its rates, and what one run over a batch draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from tidegate.errors import ConfigError

Rate: TypeAlias = float | Sequence[float]


class Given(NamedTuple):
    """What a step reads beside its projected input and states: `rows` [B, ·] a sequence, `steps` [B, T, ·] a step."""

    rows: dict[str, Tensor]
    steps: dict[str, Tensor]

    def at(self, t: int) -> dict[str, Tensor]:
        """Return what step t reads, by name."""
        return {**self.rows, **{name: each[:, t] for name, each in self.steps.items()}}

    def also(self, other: Given) -> Given:
        """Return what is in either."""
        return Given({**self.rows, **other.rows}, {**self.steps, **other.steps})


NOTHING = Given({}, {})


@dataclass(frozen=True)
class Noise:
    """The rates at which a cell in training drops or keeps, each 0 to 1.

    `zoneout`, one for each state: units that keep their previous value (Krueger et al. 2016, equation 3).
    `inputs` and `hidden`: variational dropout, one mask a sequence on the input and on what enters recurrent
    products (Gal & Ghahramani 2016, equation 7, untied across gates' inputs only by the product they share).
    `candidate`: recurrent dropout, a new mask each step on the candidate (Semeniuta et al. 2016, equation 15).
    """

    zoneout: tuple[float, ...]
    inputs: float
    hidden: float
    candidate: float

    @property
    def draws(self) -> bool:
        """Whether training draws anything."""
        return any((*self.zoneout, self.inputs, self.hidden, self.candidate))

    def draw(self, x: Tensor, states: Sequence[tuple[str, int]], width: int, candidate: int, like: Tensor) -> Given:
        """Draw the masks of one run over `x` [B, T, I] from torch's random state, in `like`'s dtype and device.

        `states` are names and widths; recurrent products read `width` numbers, candidates are `candidate` wide.
        """
        batch, steps = x.shape[:2]

        def mask(rate: float, *shape: int) -> Tensor:
            return torch.empty(*shape, dtype=like.dtype, device=x.device).bernoulli_(1 - rate).div_(max(1 - rate, 1e-7))

        rows, each = {}, {}
        if self.inputs:
            rows["input_mask"] = mask(self.inputs, batch, x.shape[2])
        if self.hidden:
            rows["hidden_mask"] = mask(self.hidden, batch, width)
        if self.candidate:
            each["candidate_mask"] = mask(self.candidate, batch, steps, candidate)
        for rate, (name, size) in zip(self.zoneout, states, strict=True):
            if rate:
                kept = torch.empty(batch, steps, size, dtype=like.dtype, device=x.device)
                each[f"kept_{name}"] = kept.bernoulli_(rate)
        return Given(rows, each)


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
