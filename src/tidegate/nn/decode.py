"""Writing sequences with a decoder, a token at a time: the likeliest, or one that is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor

from tidegate.cells.options import is_number
from tidegate.errors import ConfigError
from tidegate.modes import modes_kept
from tidegate.nn.decoder import Decoder, Decoding, check_decoding
from tidegate.nn.inputs import check_input, check_parts, check_range, check_tokens


class Written(NamedTuple):
    """What was written: tokens [B, T], how many of each row [B], its log-probability [B], weights [B, T, S] or None.

    The end token is not among them; from a row's length on, tokens are `end` and weights 0. Log-probabilities, in nats,
    are sums over all tokens, the end included.
    """

    tokens: Tensor
    lengths: Tensor
    log_probabilities: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """How a token is drawn: scores over `temperature`, the `top_k` likeliest, the likeliest that make up `top_p`.

    `temperature` 0 takes the likeliest token. `top_p` keeps the smallest set of likeliest tokens whose probability is
    at least that (Holtzman et al. 2020, 1904.09751, section 3.1).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        for name, value, fits, expected in (
            ("temperature", self.temperature, is_number(self.temperature) and self.temperature >= 0, "at least 0"),
            ("top_k", self.top_k, self.top_k is None or is_count(self.top_k), "a whole number of at least 1, or None"),
            (
                "top_p",
                self.top_p,
                self.top_p is None or (is_number(self.top_p) and 0 < self.top_p <= 1),
                "above 0, at most 1, or None",
            ),
        ):
            if not fits:
                raise ConfigError(
                    "drawing tokens", expected=f"{name} {expected}", got=repr(value), hint="temperature=1.0, top_p=0.9"
                )

    def __call__(self, logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one token [B] for each row of `logits` [B, V]."""
        check_input(logits, "B", logits.shape[-1] if isinstance(logits, Tensor) else 0, doing="drawing tokens",
                    name="logits", hint="scores of all tokens, a row a sequence")  # fmt: skip
        if self.temperature == 0:
            return logits.argmax(-1)
        return torch.multinomial(self.probabilities(logits), 1, generator=generator)[:, 0]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities [B, V] that tokens are drawn with; of equally likely ones, the first are kept."""
        logits = logits.double()
        logits = (logits - logits.amax(-1, keepdim=True)) / max(self.temperature, 1e-300)
        ordered, order = logits.sort(descending=True, stable=True)
        if self.top_k is not None:
            ordered[:, self.top_k :] = float("-inf")
        if self.top_p is not None:
            shares = ordered.softmax(-1)
            ordered = ordered.masked_fill(shares.cumsum(-1) - shares >= self.top_p, float("-inf"))
        return torch.empty_like(logits).scatter_(-1, order, ordered).softmax(-1).float()


def is_count(value: object) -> bool:
    """Whether `value` is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def banned_tokens(doing: str, never: Sequence[int], count: int) -> list[int]:
    """Return tokens that are never written, or raise `ConfigError` unless they are some of `count`, and not all."""
    banned = list(never) if isinstance(never, Iterable) and not isinstance(never, str) else [never]
    numbers = [int(token) for token in banned if isinstance(token, Integral) and not isinstance(token, bool)]
    if len(numbers) < len(banned) or not all(0 <= n < count for n in numbers) or len({*numbers}) == count:
        raise ConfigError(
            doing, expected=f"never to name some of the decoder's {count} tokens, and to leave one", got=f"{banned!r}",
            hint="never=(1,)",
        )  # fmt: skip
    return numbers


@contextmanager
def evaluating(decoder: Decoder, first: Tensor, end: int | None) -> Iterator[None]:
    """Check what a sequence begins and ends with, and let the decoder be in evaluation, without gradients."""
    check_tokens("writing with a decoder", first, 1)
    check_range("writing with a decoder", first, decoder.tokens)
    if end is not None and not (isinstance(end, int) and 0 <= end < decoder.tokens):
        raise ConfigError(
            "writing with a decoder", expected=f"end to be one of the decoder's {decoder.tokens} tokens",
            got=repr(end), hint="end=1",
        )  # fmt: skip
    with modes_kept(decoder), torch.no_grad():
        decoder.eval()
        yield


GREEDY = Draw(temperature=0)


def write(
    decoder: Decoder,
    first: Tensor,
    before: Decoding | None = None,
    *,
    steps: int,
    end: int | None = None,
    never: Sequence[int] = (),
    draw: Draw = GREEDY,
    generator: torch.Generator | None = None,
) -> Written:
    """Write up to `steps` tokens after the tokens `first` [B], until each row has written `end`.

    Tokens that are `never` written have no share of the probabilities. The decoder writes as it does in evaluation,
    whatever mode it is in. Raises `ConfigError` for an `end` or a `never` that is no token, where nothing is left to
    write, or for steps that are no number, `ShapeError` for tokens that are none.
    """
    check_parts("writing with a decoder", decoder=(decoder, Decoder), draw=(draw, Draw))
    if not is_count(steps):
        raise ConfigError(
            "writing with a decoder", expected="steps, a whole number of at least 1", got=repr(steps), hint="steps=50"
        )
    banned = banned_tokens("writing with a decoder", never, decoder.tokens)
    with evaluating(decoder, first, end):
        before = check_decoding("writing with a decoder", before)
        return _write(decoder, first, before, steps, end, banned, draw, generator)


def _write(
    decoder: Decoder, first: Tensor, before: Decoding, steps: int, end: int | None, never: list[int], draw: Draw,
    generator: torch.Generator | None,
) -> Written:  # fmt: skip
    batch = len(first)
    alive = torch.ones(batch, dtype=torch.bool, device=first.device)
    lengths = torch.zeros(batch, dtype=torch.int64, device=first.device)
    total = torch.zeros(batch, device=first.device)
    read, now = first, before
    tokens: list[Tensor] = []
    weights: list[Tensor] = []
    while len(tokens) < steps and bool(alive.any()):
        logits, weight, now = decoder.step(read, now)
        logits[:, never] = float("-inf")
        chosen = draw(logits, generator)
        gained = logits.float().log_softmax(-1).gather(-1, chosen[:, None])[:, 0]
        total = total + torch.where(alive, gained, 0.0)
        if end is not None:
            alive = alive & (chosen != end)
            chosen = torch.where(alive, chosen, end)
        lengths = lengths + alive
        tokens.append(chosen)
        weights += [] if weight is None else [torch.where(alive[:, None], weight, 0.0)]
        read = chosen
    longest = int(lengths.max()) if batch else 0
    written = torch.stack(tokens, 1)[:, :longest] if tokens else first.new_zeros(batch, 0)
    return Written(written, lengths, total, torch.stack(weights, 1)[:, :longest] if weights else None)
