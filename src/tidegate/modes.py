"""Training or evaluation: what modules do for a while, each in its own mode before and after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

from torch import nn

Modes: TypeAlias = list[tuple[nn.Module, bool]]
"""Modules, and whether each is in training."""


def modes_of(module: nn.Module) -> Modes:
    """Return the modes of a module and of all it holds."""
    return [(each, each.training) for each in module.modules()]


def set_modes(modes: Modes) -> None:
    """Put each module into the mode it had, those it holds left alone."""
    for each, training in modes:
        each.training = training


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Give a module and all it holds their own modes back, whatever is done to them inside."""
    before = modes_of(module)
    try:
        yield
    finally:
        set_modes(before)
