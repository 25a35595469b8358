"""Connectionist temporal classification: targets shorter than their inputs, without knowing where each symbol lies.

A path names one of V symbols at each step. It stands for what is left when repeats are merged and blanks taken out; the
probability of a target is the sum over all paths that stand for it.
Source: Graves et al. 2006, "Connectionist temporal classification", ICML.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.beam import Found
from tidegate.nn.decode import Written, is_count
from tidegate.shapes import check_lengths, length_mask, zero_padding
from tidegate.tasks.losses import Sums

Lengths = Tensor | Sequence[int] | None


def ctc_loss(
    logits: Tensor, target: Tensor, *, lengths: Lengths = None, target_lengths: Lengths = None, blank: int = 0
) -> Sums:
    """Sum `−ln P(target | logits)` in nats over the rows that can be aligned; the count is theirs.

    logits [B, T, V] are real in `lengths` [B] steps, targets int64 [B, S] in `target_lengths` [B]; all unless given.
    What lies beyond changes nothing. A target of length 0 is a path of blanks. A row that no path can stand for (see
    `alignable`) adds neither to the sum nor to the count, and has no gradient.
    Raises `ShapeError` and `ConfigError` for targets that cannot be. Computed by torch's own `ctc_loss`.
    """
    doing = "computing the CTC loss"
    logits, lengths = _steps(doing, logits, lengths, blank)
    target, target_lengths = _targets(doing, logits, target, target_lengths, blank)
    possible = alignable(target, lengths, target_lengths)
    if not logits.numel():
        return logits.sum(), possible.sum()
    each = F.ctc_loss(
        zero_padding(logits, lengths).transpose(0, 1).log_softmax(-1),
        target,
        lengths,
        target_lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return torch.where(possible, each, 0).sum(), possible.sum()


def alignable(target: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """Return [B] whether each target has a path: a step for each symbol, and one more between two that are the same."""
    inner = length_mask(target_lengths - 1, max(target.shape[1] - 1, 0))
    repeats = ((target[:, 1:] == target[:, :-1]) & inner).sum(1)
    return lengths >= target_lengths + repeats


def best_path(logits: Tensor, *, lengths: Lengths = None, blank: int = 0) -> Written:
    """Return what the likeliest path of each row stands for, and the path's log-probability in nats.

    The likeliest target may be another one (see `prefix_search`). Tokens beyond a row's length are `blank`.
    """
    logits, lengths = _steps("decoding the best path", logits, lengths, blank)
    logits = zero_padding(logits.detach(), lengths)
    gained, path = logits.log_softmax(-1).max(-1)
    real = length_mask(lengths, path.shape[1])
    changed = torch.ones_like(real)
    changed[:, 1:] = path[:, 1:] != path[:, :-1]
    kept = real & changed & (path != blank)
    counts = kept.sum(1)
    tokens = path.new_full((len(path), int(counts.max()) if len(path) else 0), blank)
    tokens[length_mask(counts, tokens.shape[1])] = path[kept]
    return Written(tokens, counts, (gained * real).sum(1))


def prefix_search(logits: Tensor, *, lengths: Lengths = None, width: int, blank: int = 0, count: int = 1) -> Found:
    """Return the `count` likeliest targets of each row, summed over paths, keeping `width` prefixes after each step.

    Scores are log-probabilities in nats; exact when `width` leaves no prefix out, else of the paths that were kept.
    Tokens beyond a target's length are `blank`; weights are None. Runs on the CPU in double precision, a row at a time.
    Source: prefix search of Graves et al. 2006, section 3.2, as a beam (Hannun et al. 2014, 1408.2873, algorithm 1,
    without a language model).
    """
    doing = "searching prefixes"
    if not (is_count(width) and is_count(count) and count <= width):
        raise ConfigError(
            doing,
            expected="a width of at least 1, and count from 1 to width",
            got=f"width={width}, count={count}",
            hint="width=16",
        )
    logits, lengths = _steps(doing, logits, lengths, blank)
    log_p = logits.detach().double().log_softmax(-1).cpu()
    every = [_search(log_p[b, :n], width, blank)[:count] for b, n in enumerate(lengths.tolist())]
    longest = max((len(prefix) for found in every for prefix, _ in found), default=0)
    tokens = torch.full((len(every), count, longest), blank)
    sizes = torch.zeros(len(every), count, dtype=torch.int64)
    scores = torch.full((len(every), count), -torch.inf, dtype=torch.float64)
    for b, found in enumerate(every):
        for k, (prefix, score) in enumerate(found):
            tokens[b, k, : len(prefix)] = torch.tensor(prefix, dtype=torch.int64)
            sizes[b, k], scores[b, k] = len(prefix), score
    tokens, sizes, scores = (each.to(logits.device) for each in (tokens, sizes, scores.to(logits.dtype)))
    return Found(tokens, sizes, scores, scores, None)


def _search(log_p: Tensor, width: int, blank: int) -> list[tuple[tuple[int, ...], float]]:
    """Return prefixes with their log-probabilities, best first, from those of symbols [T, V]."""
    prefixes: list[tuple[int, ...]] = [()]
    # Of paths that stand for each prefix, those that end in a blank and those that end in its last symbol, [K].
    in_blank, in_last = torch.zeros(1, dtype=torch.float64), torch.full((1,), -torch.inf, dtype=torch.float64)
    for y in log_p:
        known = {prefix: k for k, prefix in enumerate(prefixes)}
        whole = torch.logaddexp(in_blank, in_last)
        grown = whole[:, None] + y
        grown[:, blank] = -torch.inf
        stays_blank, stays_last = whole + y[blank], in_last.clone()
        for k, prefix in enumerate(prefixes):
            if prefix:
                last = prefix[-1]
                stays_last[k] += y[last]
                # The same symbol again is a new one only after a blank.
                grown[k, last] = in_blank[k] + y[last]
        for k, prefix in enumerate(prefixes):
            if prefix and (parent := known.get(prefix[:-1])) is not None:
                stays_last[k] = torch.logaddexp(stays_last[k], grown[parent, prefix[-1]])
                grown[parent, prefix[-1]] = -torch.inf
        scores = torch.cat([torch.logaddexp(stays_blank, stays_last), grown.flatten()])
        kept = scores.topk(min(width, int((scores > -torch.inf).sum()))).indices
        some, more = kept[kept < len(prefixes)], kept[kept >= len(prefixes)] - len(prefixes)
        parents, symbols = (more // len(y)).tolist(), (more % len(y)).tolist()
        prefixes = [prefixes[k] for k in some.tolist()] + [
            (*prefixes[k], c) for k, c in zip(parents, symbols, strict=True)
        ]
        none = torch.full((len(more),), -torch.inf, dtype=torch.float64)
        in_blank = torch.cat([stays_blank[some], none])
        in_last = torch.cat([stays_last[some], grown.flatten()[more]])
    total = torch.logaddexp(in_blank, in_last)
    return [(prefixes[k], float(total[k])) for k in total.argsort(descending=True, stable=True).tolist()]


def _steps(doing: str, logits: Tensor, lengths: Lengths, blank: int) -> tuple[Tensor, Tensor]:
    if logits.dim() != 3 or not logits.is_floating_point():
        raise ShapeError(
            doing,
            expected="logits [B, T, V] of floating point",
            got=f"shape {list(logits.shape)}, dtype {logits.dtype}",
            hint="batch first, a score for each symbol and the blank",
        )
    batch, steps, symbols = logits.shape
    if isinstance(blank, bool) or not isinstance(blank, int) or not 0 <= blank < symbols:
        raise ConfigError(doing, expected=f"blank to be one of {symbols} symbols", got=repr(blank), hint="blank=0")
    wide = logits if logits.dtype == torch.float64 else logits.float()
    given = torch.full((batch,), steps) if lengths is None else lengths
    return wide, check_lengths(given, batch, steps).to(logits.device)


def _targets(doing: str, logits: Tensor, target: Tensor, target_lengths: Lengths, blank: int) -> tuple[Tensor, Tensor]:
    """Return targets with blanks in their padding, and their lengths."""
    if target.dim() != 2 or len(target) != len(logits) or target.is_floating_point() or target.dtype == torch.bool:
        raise ShapeError(
            doing,
            expected=f"targets [B, S] of whole numbers, B={len(logits)}",
            got=f"shape {list(target.shape)}, dtype {target.dtype}",
            hint="pad targets to one length and give target_lengths",
        )
    given = torch.full((len(target),), target.shape[1]) if target_lengths is None else target_lengths
    sizes = check_lengths(given, len(target), target.shape[1]).to(target.device)
    real = length_mask(sizes, target.shape[1])
    wrong = real & ((target < 0) | (target >= logits.shape[-1]) | (target == blank))
    if bool(wrong.any()):
        row, place = (int(i) for i in wrong.nonzero()[0])
        raise ConfigError(
            doing,
            expected=f"symbols in 0..{logits.shape[-1] - 1} other than the blank, {blank}",
            got=f"{int(target[row, place])} at place {place} of row {row}",
            hint="one more output than there are symbols, for the blank",
        )
    return target.masked_fill(~real, blank).long(), sizes
