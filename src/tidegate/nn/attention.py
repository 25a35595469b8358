"""Attention of queries to a sequence: a weight for each of its steps, and their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.options import check_size, probability
from tidegate.errors import ConfigError
from tidegate.nn.inputs import check_input, check_parts, first_dtype
from tidegate.nn.scores import SCORES, Place, checked_mask, softmax
from tidegate.shapes import check_lengths, length_mask, zero_padding

PLACES = ("monotonic", "predicted")


class Memory(NamedTuple):
    """A sequence that queries attend to: `values` [B, S, V], what the score needs of the keys, `lengths` [B]."""

    values: Tensor
    seen: Tensor
    lengths: Tensor


class Attention(nn.Module):
    """Attend from each query to a sequence of keys: `context, weights = attention(queries, keys, lengths=lengths)`.

        α_t = softmax_i(score(h_t, k_i))        C_t = Σ_i α_ti v_i

    - `score`: "additive", "bahdanau", "concat", "dot", "scaled_dot" or "general"; see `nn.scores`. `hidden_size` is
      the width inside those with a `vᵀ tanh(·)`, the query's unless given.
    - `window` D: local attention (Luong et al. 2015, section 3.2), to the keys within D steps of a place p_t: the
      query's own number ("monotonic"), or `S σ(vᵀ tanh(W h_t))` ("predicted"), whose weights are then multiplied by
      `exp(−(i − p_t)²/2σ²)` with σ = D/2, S the row's length. `place` says which.
    - `dropout` drops weights in training.

    `queries` [B, T, Q], or [B, Q] for a single one, `keys` [B, S, K]; `values` [B, S, V], with V = `value_size`, are
    the keys unless given.
    `lengths` [B] says how many keys of each row are real, `mask` [B, T, S] or [T, S] which ones each query may see.
    Weights [B, T, S] are exactly 0 elsewhere, and what keys and values hold there changes nothing; a query that may
    see nothing gets weights and context of 0. `attention(x)` is self-attention.
    """

    def __init__(
        self,
        query_size: int,
        key_size: int,
        *,
        score: str = "bahdanau",
        hidden_size: int | None = None,
        value_size: int | None = None,
        window: int | None = None,
        place: str = "predicted",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.query_size = check_size(self, "query_size", query_size)
        self.key_size = check_size(self, "key_size", key_size)
        self.value_size = check_size(self, "value_size", key_size if value_size is None else value_size)
        width = query_size if hidden_size is None else check_size(self, "hidden_size", hidden_size)
        self.score = SCORES[score](query_size, key_size, width)
        self.window = _positive(window)
        if place not in PLACES:
            raise ConfigError(
                "building an attention", expected=f"place to be one of {list(PLACES)}", got=repr(place),
                hint="place='predicted'",
            )  # fmt: skip
        self.place = Place(query_size, width) if window is not None and place == "predicted" else None
        self.dropout = probability("building an attention", dropout)

    def memory(
        self, keys: Tensor, values: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Memory:
        """Return what `attend` reads, computed once for any number of queries."""
        keys = self._checked("keys", keys, "B, S", self.key_size)
        batch, steps = keys.shape[:2]
        given = keys if values is None else values
        values = self._checked("values, one for each key,", given, f"{batch}, {steps}", self.value_size, keys)
        if lengths is None:
            return Memory(values, self.score.keys(keys), keys.new_full((batch,), steps, dtype=torch.int64))
        lengths = check_lengths(lengths, batch, steps).to(keys.device)
        return Memory(zero_padding(values, lengths), self.score.keys(zero_padding(keys, lengths)), lengths)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the contexts [B, T, V] and the weights [B, T, S]; without T where the queries have none.

        Without `keys` the queries attend to themselves: what lies in their padding gets 0, too.
        """
        if keys is not None:
            return self.attend(queries, self.memory(keys, values, lengths), mask=mask)
        memory = self.memory(queries, values, lengths)
        if lengths is None:
            return self.attend(queries, memory, mask=mask)
        context, weights = self.attend(zero_padding(queries, memory.lengths), memory, mask=mask)
        return zero_padding(context, memory.lengths), zero_padding(weights, memory.lengths)

    def attend(
        self, queries: Tensor, memory: Memory, *, mask: Tensor | None = None, first: int | Tensor = 0
    ) -> tuple[Tensor, Tensor]:
        """Do what `forward` does with a memory; the first query is number `first`, or [B], of its sequence."""
        check_parts("attending", memory=(memory, Memory))
        if isinstance(queries, Tensor) and queries.dim() == 2:
            if mask is not None:
                mask = mask[:, None] if mask.dim() == 2 else mask
            context, weights = self.attend(queries[:, None], memory, mask=mask, first=first)
            return context[:, 0], weights[:, 0]
        queries = self._checked("queries", queries, f"{len(memory.values)}, T", self.query_size, memory.seen)
        steps, count = memory.values.shape[1], queries.shape[1]
        visible = length_mask(memory.lengths, steps)[:, None].expand(-1, count, -1)
        if mask is not None:
            visible = visible & checked_mask(mask, visible.shape)
        if self.window is None:
            weights = softmax(self.score(queries, memory.seen), visible)
        else:
            # How far each key lies from where the query looks, in windows: σ is half of one.
            at = torch.arange(steps, device=queries.device, dtype=torch.float32)
            distance = (at - self._places(queries, memory, first)) / self.window
            weights = softmax(self.score(queries, memory.seen), visible & (distance.abs() <= 1))
            if self.place is not None:
                weights = weights * torch.exp(-2 * distance.square()).to(weights.dtype)
        kept = F.dropout(weights, self.dropout, self.training) if self.dropout else weights
        return kept @ memory.values, weights

    def _checked(self, name: str, given: object, axes: str, size: int, beside: Tensor | None = None) -> Tensor:
        dtype = first_dtype(self) or (None if beside is None else beside.dtype)
        hint = "sizes are query_size, key_size and value_size, as it was built"
        return check_input(given, axes, size, dtype, doing="attending", name=name, hint=hint)

    def _places(self, queries: Tensor, memory: Memory, first: int | Tensor) -> Tensor:
        """Return where each query looks, [B, T, 1], or [T, 1] where that is the same for all rows."""
        if self.place is not None:
            places: Tensor = self.place(queries, memory.lengths)
            return places[..., None]
        numbers = torch.arange(queries.shape[1], device=queries.device, dtype=torch.float32)[:, None]
        return numbers + (first[:, None, None] if isinstance(first, Tensor) else first)


def _positive(window: int | None) -> int | None:
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ConfigError(
            "building an attention", expected="window to be a positive number of steps, or None", got=repr(window),
            hint="window=5",
        )  # fmt: skip
    return window
