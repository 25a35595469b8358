"""Searching for the likeliest sequence with a beam of hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.cells.options import is_number
from tidegate.errors import ConfigError
from tidegate.nn.decode import Written, banned_tokens, evaluating, is_count
from tidegate.nn.decoder import Decoder, Decoding, check_decoding
from tidegate.nn.inputs import check_parts
from tidegate.shapes import length_mask

DOING = "searching with a beam"


@dataclass(frozen=True)
class Penalties:
    """What a hypothesis Y scores: `log P(Y)/lp + cp` (Wu et al. 2016, 1609.08144, equation 14).

        lp = ((5 + |Y|)/6)^length        cp = coverage · Σ_i log min(Σ_t α_ti, 1)

    |Y| counts the end token; sums run over the real steps of the memory. 0 and 0 leave log P(Y).
    """

    length: float = 0.0
    coverage: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("length", self.length), ("coverage", self.coverage)):
            if not is_number(value) or value < 0:
                raise ConfigError(
                    DOING, expected=f"a {name} penalty of at least 0", got=repr(value),
                    hint=f"{name}=0.2",
                )  # fmt: skip

    def score(self, log_probabilities: Tensor, count: int, covered: Tensor | None) -> Tensor:
        """Return the scores of hypotheses of `count` tokens; `covered` [.., S] sums their weights, 1 where none is."""
        scores = log_probabilities / ((5 + count) / 6) ** self.length
        if self.coverage and covered is not None:
            scores = scores + self.coverage * covered.clamp(1e-30, 1).log().sum(-1)
        return scores

    def most(self, log_probabilities: Tensor, count: int) -> Tensor:
        """Return a score that no hypothesis of at most `count` tokens which begins like these exceeds."""
        return log_probabilities / ((5 + count) / 6) ** self.length


class Found(NamedTuple):
    """The best hypotheses of each row, best first: tokens [B, N, T], lengths, scores and log-probabilities [B, N].

    Where there are fewer than N, the rest have a score of minus infinity and no tokens.
    `weights` [B, N, T, S] are the attention's, or None. The end token is not among the tokens, but in both sums.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    log_probabilities: Tensor
    weights: Tensor | None

    def best(self) -> Written:
        """Return the first of each row."""
        longest = int(self.lengths[:, 0].max()) if len(self.lengths) else 0
        weights = None if self.weights is None else self.weights[:, 0, :longest]
        return Written(self.tokens[:, 0, :longest], self.lengths[:, 0], self.log_probabilities[:, 0], weights)

    def top(self, count: int) -> Found:
        """Return the `count` best."""
        scores, order = self.scores.topk(count)
        picked = [None if each is None else _chosen(each, order) for each in self]
        return Found(*picked)._replace(scores=scores)  # type: ignore[arg-type]

    def and_also(self, others: Found) -> Found:
        """Return the hypotheses of both."""
        pairs = zip(self, others, strict=True)
        joined = [None if mine is None or its is None else torch.cat([mine, its], 1) for mine, its in pairs]
        return Found(*joined)  # type: ignore[arg-type]


class _Beam(NamedTuple):
    """What is still being written: tokens [B, K, steps], log-probabilities [B, K], weights [B, K, steps, S]."""

    tokens: Tensor
    sums: Tensor
    weights: Tensor | None

    def ended(self, gained: Tensor, count: int, penalties: Penalties, real: Tensor | None) -> Found:
        """Return the hypotheses as they are if the next token, number `count`, is the end."""
        sums = self.sums + gained
        covered = None
        if self.weights is not None and real is not None:
            covered = torch.where(real[:, None], self.weights.sum(2), 1.0)
        lengths = torch.full_like(sums, count - 1, dtype=torch.int64)
        return Found(self.tokens, lengths, penalties.score(sums, count, covered), sums, self.weights)


def beam_search(
    decoder: Decoder,
    first: Tensor,
    before: Decoding | None = None,
    *,
    width: int,
    steps: int,
    end: int,
    never: Sequence[int] = (),
    penalties: Penalties | None = None,
    count: int = 1,
) -> Found:
    """Return the `count` best sequences that follow the tokens `first` [B], of at most `steps` tokens with the end.

    At each step the `width` likeliest hypotheses that go on are kept, and each is weighed as it would be if it ended
    there. A row is done when nothing that goes on can still be among its best: exact when `width` leaves none out.
    Tokens that are `never` written have no share of the probabilities. The decoder scores as it does in evaluation.
    Raises `ConfigError` for numbers that cannot be, an `end` among `never` among them, `ShapeError` for tokens.

    Source: Sutskever, Vinyals & Le 2014 (1409.3215), section 3.2, scored as in Wu et al. 2016 (see `Penalties`).
    """
    _check(width, steps, count)
    penalties = Penalties() if penalties is None else penalties
    check_parts(DOING, decoder=(decoder, Decoder), penalties=(penalties, Penalties))
    banned = banned_tokens(DOING, never, decoder.tokens)
    if end in banned:
        raise ConfigError(
            DOING, expected="an end that may be written", got=f"end={end}, never={banned}", hint="never=()"
        )
    with evaluating(decoder, first, end):
        return _search(decoder, first, check_decoding(DOING, before), width, steps, end, banned, penalties, count)


def _search(
    decoder: Decoder, first: Tensor, before: Decoding, width: int, steps: int, end: int, never: list[int],
    penalties: Penalties, count: int,
) -> Found:  # fmt: skip
    batch, device = len(first), first.device
    read, now = first.repeat_interleave(width), before.rows(torch.arange(batch, device=device).repeat_interleave(width))
    real = None
    if before.memory is not None:
        real = length_mask(before.memory.lengths, before.memory.values.shape[1])
    sums = torch.full((batch, width), float("-inf"), device=device)
    sums[:, 0] = 0.0
    beam = _Beam(torch.full((batch, width, steps), end, device=device), sums, None)
    found: Found | None = None
    for t in range(steps):
        logits, weight, after = decoder.step(read, now)
        logits[:, never] = float("-inf")
        gained = logits.float().log_softmax(-1).view(batch, width, logits.shape[-1])
        if weight is not None:
            if beam.weights is None:
                beam = beam._replace(weights=weight.new_zeros(batch, width, steps, weight.shape[-1]))
            assert beam.weights is not None
            beam.weights[:, :, t] = weight.view(batch, width, weight.shape[-1])
        ended = beam.ended(gained[..., end], t + 1, penalties, real)
        found = (ended if found is None else found.and_also(ended)).top(count)
        if found.weights is not None:  # what the end token looked at is in the coverage, not in the answer
            found.weights[:, :, t] = 0
        gained[..., end] = float("-inf")
        totals = (beam.sums[..., None] + gained).flatten(1)
        sums, flat = totals.topk(width)
        parents, tokens = flat // gained.shape[2], flat % gained.shape[2]
        beam = _Beam(*(None if each is None else _chosen(each, parents) for each in beam))._replace(sums=sums)  # type: ignore[arg-type]
        beam.tokens[:, :, t] = tokens
        if bool((penalties.most(sums[:, 0], steps) <= found.scores[:, -1]).all()):
            break
        rows = (parents + torch.arange(batch, device=device)[:, None] * width).flatten()
        # Hypotheses change places within their row, where what is attended to is the same.
        now = after._replace(memory=None).rows(rows)._replace(memory=now.memory)
        read = tokens.flatten()
    assert found is not None
    none = found.scores == float("-inf")
    lengths = found.lengths.masked_fill(none, 0)
    tokens = found.tokens.masked_fill(none[..., None], end)
    longest = int(lengths.max()) if batch else 0
    weights = None if found.weights is None else found.weights.masked_fill(none[..., None, None], 0.0)[:, :, :longest]
    return found._replace(tokens=tokens[:, :, :longest], lengths=lengths, weights=weights)


def _chosen(values: Tensor, order: Tensor) -> Tensor:
    """Return `values` [B, N, …] with the entries of each row as `order` [B, M] numbers them."""
    rows = torch.arange(len(values), device=values.device)[:, None]
    return values[rows, order]


def _check(width: int, steps: int, count: int) -> None:
    fits = {"width": is_count(width), "steps": is_count(steps), "count": is_count(count) and count <= width}
    for name, fine in fits.items():
        if not fine:
            raise ConfigError(
                DOING,
                expected="width and steps of at least 1, and count from 1 to width",
                got=f"width={width}, steps={steps}, count={count}",
                hint=f"another {name}",
            )
