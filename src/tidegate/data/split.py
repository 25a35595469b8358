"""Parts of a table for training and validation: whole sequences, or the past and the future."""

from __future__ import annotations

import numpy as np

from tidegate.errors import ConfigError


def split_by_id(
    count: int, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, validation) sequence indices, sorted; about `fraction` of `count` are held out.

    With `groups` [count] (class indices) each class is split on its own: a class with two or more sequences keeps
    at least one in training. A sequence is never in both parts.
    """
    doing = "splitting sequences into training and validation"
    if not 0.0 < fraction < 1.0:
        raise ConfigError(doing, expected="a fraction between 0 and 1", got=repr(fraction), hint="valid=0.15")
    if count < 2:
        raise ConfigError(
            doing,
            expected="at least 2 sequences",
            got=str(count),
            hint="name the column that tells sequences apart with id=, or pass validation data",
        )
    random = np.random.default_rng([seed, 0x5EED])
    order = random.permutation(count)
    if groups is None:
        held = order[: max(1, min(count - 1, round(count * fraction)))]
    else:
        # Ranking each class by the same shuffle and cutting by quota gives whole-number counts that add up.
        held = np.concatenate([_quota(order[groups[order] == g], fraction) for g in np.unique(groups)])
        if not held.size:
            held = order[:1]
    is_held = np.zeros(count, dtype=bool)
    is_held[held] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _quota(members: np.ndarray, fraction: float) -> np.ndarray:
    size = len(members)
    return members[: min(size - 1, max(1, round(size * fraction)))] if size > 1 else members[:0]


def cut_by_fraction(lengths: np.ndarray, fraction: float, least: int) -> np.ndarray:
    """Return for each sequence [N] the step at which its validation part begins: its last `fraction`.

    At least `least` steps are held out. A sequence too short to give `least` steps to both parts is all training.
    """
    held = np.maximum(np.round(lengths * fraction).astype(np.int64), least)
    return np.where(lengths - held >= least, lengths - held, lengths)
