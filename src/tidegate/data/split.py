"""Parts of a table for training and validation: whole sequences, or the past and the future."""

from __future__ import annotations

import numpy as np

from tidegate.errors import ConfigError


def split_by_id(
    count: int, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (training, validation) sequence indices, sorted; about `fraction` of `count` are held out.

    With `groups` [count] (class indices) the held-out part is shared out among the classes as they stand, by largest
    remainder, and every class keeps at least one sequence in training; at least one sequence is held out in all. A
    sequence is never in both parts.
    """
    doing = "splitting sequences into training and validation"
    if not 0.0 < fraction < 1.0:
        raise ConfigError(doing, expected="a fraction between 0 and 1", got=repr(fraction), hint="valid=0.15")
    if count < 2:
        raise ConfigError(
            doing,
            expected="at least 2 sequences, or texts",
            got=str(count),
            hint="give more, or valid= data of its own; id= names the column that tells a table's sequences apart",
        )
    random = np.random.default_rng([seed, 0x5EED])
    order = random.permutation(count)
    total = max(1, min(count - 1, round(count * fraction)))
    held = order[:total] if groups is None else _by_class(order, groups, fraction, total)
    is_held = np.zeros(count, dtype=bool)
    is_held[held] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def _by_class(order: np.ndarray, groups: np.ndarray, fraction: float, total: int) -> np.ndarray:
    """Return about `total` of the shuffled sequences `order`, of each class its share."""
    classes = groups[order]
    found, first, sizes = np.unique(classes, return_index=True, return_counts=True)
    quota = np.minimum(np.floor(sizes * fraction).astype(np.int64), sizes - 1)
    # Ties go by the shuffle: classes are not favoured for their names.
    by_remainder = np.lexsort((first, quota - sizes * fraction))
    spare = by_remainder[(quota < sizes - 1)[by_remainder]]
    quota[spare[: max(0, total - quota.sum())]] += 1
    held = np.concatenate([order[classes == c][:n] for c, n in zip(found, quota, strict=True)])
    return held if held.size else order[:1]


def cut_by_fraction(lengths: np.ndarray, fraction: float, least: int) -> np.ndarray:
    """Return for each sequence [N] the step at which its validation part begins: its last `fraction`.

    At least `least` steps are held out. A sequence too short to give `least` steps to both parts is all training.
    """
    held = np.maximum(np.round(lengths * fraction).astype(np.int64), least)
    return np.where(lengths - held >= least, lengths - held, lengths)
