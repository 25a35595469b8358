"""Which backend runs a cell: "auto" may choose, a name runs or raises with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

import torch
from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.cells.noise import NOTHING, Given
from tidegate.compile import aten, compiled, reference, scan, segments
from tidegate.compile.aten import Shape
from tidegate.compile.call import Call, Refusal, Run
from tidegate.compile.llvm.host import host
from tidegate.compile.native import by_tiles
from tidegate.errors import BackendError, ConfigError, ShapeError
from tidegate.registry import Registry
from tidegate.shapes import check_lengths, check_resets

UnrollStack = Callable[
    [Sequence[Cell], Shape, Tensor, Sequence[tuple[Tensor, ...] | None], Tensor | None], tuple[Tensor, State] | None
]


@dataclass(frozen=True)
class Backend:
    """A way to run a cell over a sequence: `refuses` gives what words why not, or None; `unroll` does it.

    `unroll_stack`, where there is one, runs a stack with nothing but dropout between its layers, or returns None.
    """

    unroll: Callable[[Call], Run]
    refuses: Callable[[Call], Refusal | None]
    unroll_stack: UnrollStack | None = None


_ARGUMENTS = ("state", "lengths", "resets")

FEW_STEPS, MANY_UNITS, LONG_VECTOR = 32, 256, 64
FEW_ROWS, SOME_ROWS, FEW_NUMBERS, MANY_NUMBERS = 4, 8, 2**17, 2**20


def _never(call: Call) -> None:  # noqa: ARG001
    return None


BACKENDS: Registry[Backend] = Registry("backend")
"""In order of preference: "auto" takes the first that does not refuse, but where `choose` knows a faster one."""

BACKENDS.add("scan")(Backend(scan.unroll, scan.refuses))
BACKENDS.add("llvm")(Backend(compiled.unroll, compiled.refuses))
BACKENDS.add("aten")(Backend(aten.unroll, aten.refuses, aten.unroll_stack))
BACKENDS.add("reference")(Backend(reference.unroll, _never))


def unroll(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    backend: str = "auto",
    **inputs: Tensor,
) -> tuple[Tensor, State]:
    """Run `cell` over `x` [B, T, I] on the backend named or chosen; it returns what `reference.unroll` does.

    `inputs` are what the cell reads beside x, by name, [B, T, ·] each. Noise is drawn from torch's random state.
    Raises `BackendError` with the reason when a named backend cannot run this, `ShapeError` where `x`, `state`,
    `lengths` [B], `resets` [B, T] or an input do not fit, and `ConfigError` where the inputs are not the cell's.
    """
    done = run(checked(cell, x, state, lengths, resets, inputs), backend)
    return done.outputs, cell.pack(done.states)


def trajectory(
    cell: Cell,
    x: Tensor,
    state: State | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    resets: Tensor | None = None,
    backend: str = "auto",
    **inputs: Tensor,
) -> tuple[Tensor, ...]:
    """Return every state after every step, one [B, T, ·] for each of `cell.states`, zero in the padding.

    Arguments and errors are those of `unroll`.
    """
    call = checked(cell, x, state, lengths, resets, inputs)
    return run(call._replace(every_state=True), backend).every


def checked(
    cell: Cell,
    x: Tensor,
    state: State | None,
    lengths: Tensor | Sequence[int] | None,
    resets: Tensor | None,
    inputs: Mapping[str, Tensor],
) -> Call:
    """Return the call that these arguments make, or raise where they do not fit each other."""
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
    states = None if state is None else cell.unpack(state)
    return Call(cell, x, states, lengths, resets, check_inputs(cell, x, inputs))


def check_inputs(cell: Cell, x: Tensor, inputs: Mapping[str, Tensor]) -> Given:
    """Return what a cell reads beside x [B, T, I], each [B, T, ·], in the weights' dtype."""
    doing = f"unrolling {type(cell).__name__}"
    if set(inputs) != set(cell.inputs):
        unknown = [name for name in inputs if name not in cell.inputs]
        meant = [found for name in unknown for found in get_close_matches(name, _ARGUMENTS, 1)]
        raise ConfigError(
            doing,
            expected=f"the inputs {list(cell.inputs)} beside x" if cell.inputs else "no input beside x",
            got=f"{sorted(inputs)}",
            hint=", ".join([f"{name}=…" for name in [*meant, *cell.inputs]]) or "leave them out",
        )
    if not cell.inputs:
        return NOTHING
    steps = {}
    for name in cell.inputs:
        value = inputs[name]
        if not isinstance(value, Tensor):
            raise ShapeError(
                doing,
                expected=f"{name}, a tensor of shape [{x.shape[0]}, {x.shape[1]}, ·]",
                got=f"a {type(value).__name__}",
                hint=f"{name}=torch.as_tensor(…)",
            )
        value = value[..., None] if value.dim() == 2 else value
        if value.dim() != 3 or value.shape[:2] != x.shape[:2]:
            raise ShapeError(
                doing,
                expected=f"{name} of shape [{x.shape[0]}, {x.shape[1]}, ·]",
                got=f"shape {list(inputs[name].shape)}",
                hint="one row a sequence, one entry a step",
            )
        steps[name] = value.to(x.device, cell.weight_ih.dtype)
    return Given({}, steps, {})


def run(call: Call, backend: str, choice: str | None = None) -> Run:
    """Run a call that is known to fit, on the backend named or chosen, with noise drawn now.

    `choice` is what `choose` gives for it, where that is known already.
    """
    name = (choice or choose(call)) if backend == "auto" else backend
    chosen = BACKENDS[name]
    reason = None if backend == "auto" else chosen.refuses(call)
    if reason is not None:
        able = [n for n, refusal in verdicts(call).items() if refusal is None]
        raise BackendError(
            f"running {type(call.cell).__name__} with backend={backend!r}",
            got=reason(),
            hint=f"backend='auto', or one that can: {', '.join(able)}",
        )
    if backend == "auto" and name == "reference" and not torch.compiler.is_compiling():
        compiled.warn_of_the_loop(call)
    drawn = call.cell.draw(call.x)
    call = call if drawn is NOTHING else call._replace(given=call.given.also(drawn))
    if call.recompute and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return segments.recompute(call, chosen.unroll)
    return chosen.unroll(call)


def run_stack(
    cells: Sequence[Cell],
    shape: Shape,
    x: Tensor,
    states: Sequence[tuple[Tensor, ...] | None],
    lengths: Tensor | None,
    resets: Tensor | None,
    backend: str,
) -> tuple[Tensor, State] | None:
    """Run a stack with nothing but dropout between its layers in one call of `backend`, or return None if it cannot.

    It is what `run` computes, cell by cell; every state of the answer is [layers·directions, B, H].
    """
    chosen = BACKENDS[backend]
    if chosen.unroll_stack is None:
        return None
    calls = [Call(cell, x, lengths=lengths, resets=resets) for cell in cells]
    if any(chosen.refuses(call) for call in calls):
        return None
    return chosen.unroll_stack(cells, shape, x, states, lengths)


def choose(call: Call) -> str:
    """Return the name of the first backend that does not refuse, or of a later one where it is known to be faster."""
    if _torch_is_faster(call) and BACKENDS["aten"].refuses(call) is None:
        return "aten"
    first = next(n for n, b in BACKENDS.items() if b.refuses(call) is None)
    if first == "scan" and _loop_is_faster(call) and BACKENDS["llvm"].refuses(call) is None:
        return "llvm"
    return first


def _loop_is_faster(call: Call) -> bool:
    """Whether a linear recurrence runs faster as a compiled loop, which keeps in registers what lies between.

    Threads share rows there and channels in a scan, so a scan is for long sequences of few rows. Measured with AVX2
    on 2 cores: from 4 rows on, and in short runs, training takes 1.0 to 3.6 times as long by a scan; of complex
    states, which take twice the code, from 8 rows and a million numbers on 1.2 to 1.6 times as long.
    """
    if torch.compiler.is_compiling():
        return False
    batch, steps = call.x.shape[:2]
    numbers = batch * steps * call.cell.state_sizes[-1]
    if cast(scan.LinearCell, call.cell).is_complex:
        return batch >= SOME_ROWS and numbers >= MANY_NUMBERS
    return batch >= FEW_ROWS or numbers <= FEW_NUMBERS


def _torch_is_faster(call: Call) -> bool:
    """Whether torch's kernel beats a compiled one: oneDNN's LSTM of many units, or over few steps of short vectors.

    Measured on 2 cores: from 256 units on, training without a matrix unit takes 1.0 to 2.1 times as long compiled; at
    8 to 24 steps up to 1.2 times with AVX2, but with AVX-512 torch takes 1.0 to 1.4 times as long. With a matrix
    unit they take the same time or less. Torch's other kernels, projections and packed rows are slower.
    """
    cell, (rows, steps, _) = call.cell, call.x.shape
    if call.lengths is not None or torch.compiler.is_compiling():
        return False
    if cell.native() != "lstm" or cell.recurrent_size != cell.hidden_size:
        return False
    here = host()
    if by_tiles(here, cell.weight_ih.dtype, rows):
        return False
    return cell.hidden_size >= MANY_UNITS or (steps <= FEW_STEPS and here.vector_bytes < LONG_VECTOR)


def verdicts(call: Call) -> dict[str, str | None]:
    """Return, for every backend, why it refuses, or None."""
    reasons = {name: backend.refuses(call) for name, backend in BACKENDS.items()}
    return {name: None if reason is None else reason() for name, reason in reasons.items()}
