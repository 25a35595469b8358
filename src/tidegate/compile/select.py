"""Which backend runs a cell: "auto" may choose, a name runs or raises with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.compile import aten, reference
from tidegate.compile.aten import Shape
from tidegate.errors import BackendError, ShapeError
from tidegate.registry import Registry
from tidegate.shapes import check_lengths, check_resets

Refuses = Callable[[Cell, Tensor, Tensor | None, Tensor | None], Callable[[], str] | None]
Unroll = Callable[[Cell, Tensor, State | None, Tensor | None, Tensor | None], tuple[Tensor, State]]
UnrollStack = Callable[
    [Sequence[Cell], Shape, Tensor, Sequence[State | None], Tensor | None], tuple[Tensor, State] | None
]


@dataclass(frozen=True)
class Backend:
    """A way to run a cell over a sequence: `refuses` gives what words why not, or None; `unroll` does it.

    `unroll_stack`, where there is one, runs a stack with nothing but dropout between its layers, or returns None.
    """

    unroll: Unroll
    refuses: Refuses
    unroll_stack: UnrollStack | None = None


def _never(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> None:  # noqa: ARG001
    return None


BACKENDS: Registry[Backend] = Registry("backend")
"""In order of preference: "auto" takes the first that does not refuse."""

BACKENDS.add("aten")(Backend(aten.unroll, aten.refuses, aten.unroll_stack))
BACKENDS.add("reference")(Backend(reference.unroll, _never))


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """Run `cell` over `x` [B, T, I] on the backend named or chosen; it returns what `reference.unroll` does.

    Raises `BackendError` with the reason when a named backend cannot run this, and `ShapeError` where `x`,
    `state`, `lengths` [B] or `resets` [B, T] do not fit.
    """
    doing = f"unrolling {type(cell).__name__}"
    if x.dim() != 3 or x.shape[2] != cell.input_size:
        raise ShapeError(
            doing,
            expected=f"x of shape [B, T, {cell.input_size}]",
            got=f"shape {list(x.shape)}",
            hint="x[None] for one sequence",
        )
    batch, steps, _ = x.shape
    if state is not None:
        given, wanted = [list(s.shape) for s in cell.unpack(state)], [[batch, size] for size in cell.state_sizes]
        if given != wanted:
            raise ShapeError(doing, expected=f"states of shapes {wanted}", got=f"{given}", hint="[B, H] each")
    if lengths is not None:
        lengths = check_lengths(lengths, batch, steps).to(x.device)
    if resets is not None:
        resets = check_resets(resets, (batch, steps)).to(x.device)
    return run(cell, x, state, lengths, resets, backend)


def run(
    cell: Cell, x: Tensor, state: State | None, lengths: Tensor | None, resets: Tensor | None, backend: str
) -> tuple[Tensor, State]:
    """`unroll` on arguments that are known to fit."""
    name = choose(cell, x, lengths, resets) if backend == "auto" else backend
    chosen = BACKENDS[name]
    reason = None if backend == "auto" else chosen.refuses(cell, x, lengths, resets)
    if reason is not None:
        able = [n for n, refusal in verdicts(cell, x, lengths, resets).items() if refusal is None]
        raise BackendError(
            f"running {type(cell).__name__} with backend={backend!r}",
            got=reason(),
            hint=f"backend='auto', or one that can: {', '.join(able)}",
        )
    return chosen.unroll(cell, x, state, lengths, resets)


def run_stack(
    cells: Sequence[Cell],
    shape: Shape,
    x: Tensor,
    states: Sequence[State | None],
    lengths: Tensor | None,
    resets: Tensor | None,
    backend: str,
) -> tuple[Tensor, State] | None:
    """Run a stack with nothing but dropout between its layers in one call, or return None where none can.

    It is what `run` computes, cell by cell; every state of the answer is [layers·directions, B, H].
    """
    name = choose(cells[0], x, lengths, resets) if backend == "auto" else backend
    chosen = BACKENDS[name]
    if chosen.unroll_stack is None or any(chosen.refuses(cell, x, lengths, resets) for cell in cells):
        return None
    return chosen.unroll_stack(cells, shape, x, states, lengths)


def choose(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> str:
    """Return the name of the first backend that does not refuse."""
    return next(n for n, b in BACKENDS.items() if b.refuses(cell, x, lengths, resets) is None)


def verdicts(cell: Cell, x: Tensor, lengths: Tensor | None, resets: Tensor | None) -> dict[str, str | None]:
    """Return, for every backend, why it refuses, or None."""
    reasons = {name: backend.refuses(cell, x, lengths, resets) for name, backend in BACKENDS.items()}
    return {name: None if reason is None else reason() for name, reason in reasons.items()}
