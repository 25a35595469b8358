"""Balanced sampling: every group equally often an epoch, drawn from a random state of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def balanced_count(groups: Sequence[np.ndarray]) -> int:
    """Return how many items a balanced epoch takes: all there are, made up to the same number for every group."""
    return len(groups) * -(-sum(map(len, groups)) // len(groups))


def balanced(groups: Sequence[np.ndarray], random: np.random.Generator) -> np.ndarray:
    """Return indices in random order, equally many of each group; `groups` holds the indices of each, none empty.

    None comes again before all of its group have come: a large group is drawn from, a small one repeated.
    """
    each = balanced_count(groups) // len(groups)
    rounds = [[random.permutation(members) for _ in range(-(-each // len(members)))] for members in groups]
    return random.permutation(np.concatenate([np.concatenate(some)[:each] for some in rounds]))
