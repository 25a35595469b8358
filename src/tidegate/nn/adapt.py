"""Sequences of one length from sequences of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tidegate.cells.options import check_size
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.attention import Attention
from tidegate.nn.inputs import check_input, first_dtype
from tidegate.shapes import check_lengths, zero_padding

WAYS = ("resample", "pool", "attend")
WAVES = 8


class Adapt(nn.Module):
    """Give every sequence another length: `y, new = adapt(x, to, lengths=lengths)`.

    - "resample": step j of T_out lies at `(j + ½) L/T_out − ½` of the L real steps, linear between two of them, as
      `torch.nn.functional.interpolate` has it.
    - "pool": step j is the mean of the steps from `⌊j L/T_out⌋` to before `⌈(j+1) L/T_out⌉`, as
      `torch.nn.functional.adaptive_avg_pool1d` has it.
    - "attend": step j is a mean of all real steps whose weights are learned (`Attention`, score "scaled_dot"): its
      query is made of sines of its place `(j + ½)/T_out`, keys of the steps and of sines of theirs.

    `x` [B, T, D] with D = `size`; `to` is one length for all rows or one for each [B], 0 and up; `lengths` [B] says how
    many steps of each row are real. `y` is [B, max(to), D], exactly 0 beyond a row's new length and where a row has no
    step; `new` [B] are the lengths. What padding holds changes nothing.
    """

    def __init__(self, size: int, how: str = "resample", *, hidden_size: int = 32) -> None:
        super().__init__()
        if how not in WAYS:
            raise ConfigError(
                "building an Adapt", expected=f"one of {list(WAYS)}", got=repr(how), hint="how='resample'"
            )
        self.size, self.how = check_size(self, "size", size), how
        check_size(self, "hidden_size", hidden_size)
        if how == "attend":
            self.attention = Attention(hidden_size, hidden_size, score="scaled_dot", value_size=size)
            self.queries = nn.Linear(2 * WAVES, hidden_size)
            self.keys = nn.Linear(size + 2 * WAVES, hidden_size)

    def forward(
        self, x: Tensor, to: int | Tensor | Sequence[int], *, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the new sequences and their lengths."""
        doing = "adapting the length of sequences"
        check_input(x, "B, T", self.size, first_dtype(self), doing=doing, name="x", hint="size is the width of a step")
        batch, steps = x.shape[:2]
        given = torch.full((batch,), steps, device=x.device)
        if lengths is not None:
            given = check_lengths(lengths, batch, steps).to(x.device)
            x = zero_padding(x, given)
        new = _lengths(to, batch).to(x.device)
        count = int(new.max()) if batch else 0
        if not count or not steps:
            return x.new_zeros(batch, count, self.size), new
        if self.how == "attend":
            y = self._attended(x, given, new, count)
        else:
            y = _shares(self.how, given, new, steps, count, x.dtype) @ x
        empty = (given == 0)[:, None, None]
        return zero_padding(y.masked_fill(empty, 0.0), new), new

    def _attended(self, x: Tensor, given: Tensor, new: Tensor, count: int) -> Tensor:
        places = _waves(_places(new, count), x.dtype)
        keys = self.keys(torch.cat([x, _waves(_places(given, x.shape[1]), x.dtype)], -1))
        y: Tensor = self.attention(self.queries(places), keys, x, lengths=given)[0]
        return y


def _lengths(to: int | Tensor | Sequence[int], batch: int) -> Tensor:
    try:
        new = torch.as_tensor(to)
    except (TypeError, ValueError, RuntimeError):
        new = torch.zeros(1, 1)
    new = new.expand(batch) if new.dim() == 0 else new
    if new.dtype == torch.bool or new.shape != (batch,) or new.is_floating_point() or (batch and int(new.min()) < 0):
        raise ShapeError(
            "adapting the length of sequences", expected=f"new lengths of at least 0, one for all or [{batch}]",
            got=f"{to!r}", hint="to=24",
        )  # fmt: skip
    return new.long()


def _places(lengths: Tensor, steps: int) -> Tensor:
    """Return where each step lies in its row, 0 to 1: `(j + ½)/L`, [B, steps]."""
    return (torch.arange(steps, device=lengths.device, dtype=torch.float64) + 0.5) / lengths.clamp(min=1)[:, None]


def _waves(places: Tensor, dtype: torch.dtype) -> Tensor:
    """Return sines and cosines of 1 to 8 half turns over the row, [B, steps, 16]."""
    turns = places[..., None] * torch.arange(1, WAVES + 1, device=places.device) * math.pi
    return torch.cat([turns.sin(), turns.cos()], -1).to(dtype)


def _shares(how: str, given: Tensor, new: Tensor, steps: int, count: int, dtype: torch.dtype) -> Tensor:
    """Return what each old step contributes to each new one, [B, count, steps]."""
    at = torch.arange(steps, device=given.device, dtype=torch.float64)
    j = torch.arange(count, device=given.device, dtype=torch.float64)
    scale = (given.double() / new.clamp(min=1))[:, None]
    if how == "resample":
        place = ((j + 0.5) * scale - 0.5).clamp(min=0).minimum((given - 1).clamp(min=0)[:, None])
        return (1 - (at - place[..., None]).abs()).clamp(min=0).to(dtype)
    # In whole numbers: a bound that is one exactly must not be taken for a little more.
    old, goal = given[:, None], new.clamp(min=1)[:, None]
    first, last = (j.long() * old) // goal, ((j.long() + 1) * old + goal - 1) // goal
    inside = (at >= first[..., None]) & (at < last[..., None])
    return (inside / inside.sum(-1, keepdim=True).clamp(min=1)).to(dtype)
