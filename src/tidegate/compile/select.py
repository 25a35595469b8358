"""Which backend runs a cell: "auto" may choose, a name runs or raises with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.compile import aten, reference
from tidegate.errors import BackendError
from tidegate.registry import Registry

Refuses = Callable[[Cell, Tensor, Tensor | None, Tensor | None], str | None]
Unroll = Callable[[Cell, Tensor, State | None, Tensor | None, Tensor | None], tuple[Tensor, State]]


@dataclass(frozen=True)
class Backend:
    """A way to run a cell over a sequence: `refuses` says why not, or None; `unroll` does it."""

    unroll: Unroll
    refuses: Refuses


def _never(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> str | None:  # noqa: ARG001
    return None


BACKENDS: Registry[Backend] = Registry("backend")
"""In order of preference: "auto" takes the first that does not refuse."""

BACKENDS.add("aten")(Backend(aten.unroll, aten.refuses))
BACKENDS.add("reference")(Backend(reference.unroll, _never))


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """Run `cell` over `x` [B, T, I] on the backend named or chosen; it returns what `reference.unroll` does.

    Raises `BackendError` with the reason when a named backend cannot run this.
    """
    name = choose(cell, x, lengths, resets) if backend == "auto" else backend
    chosen = BACKENDS[name]
    reason = None if backend == "auto" else chosen.refuses(cell, x, lengths, resets)
    if reason is not None:
        able = [n for n, refusal in verdicts(cell, x, lengths, resets).items() if refusal is None]
        raise BackendError(
            f"running {type(cell).__name__} with backend={backend!r}",
            got=reason,
            hint=f"backend='auto', or one that can: {', '.join(able)}",
        )
    return chosen.unroll(cell, x, state, lengths, resets)


def choose(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> str:
    """Return the name of the first backend that does not refuse."""
    return next(n for n, b in BACKENDS.items() if b.refuses(cell, x, lengths, resets) is None)


def verdicts(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> dict[str, str | None]:
    """Return, for every backend, why it refuses, or None."""
    return {name: backend.refuses(cell, x, lengths, resets) for name, backend in BACKENDS.items()}
