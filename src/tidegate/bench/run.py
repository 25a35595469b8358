"""The whole benchmark: every cell at every size, forward and train, no row left out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from tidegate.bench import jax_scan
from tidegate.bench.cases import CASES, Case
from tidegate.bench.first_call import FirstCall, first_call
from tidegate.bench.grid import GRID, Size, read_sizes
from tidegate.bench.grid import QUICK as QUICK_SIZES
from tidegate.bench.measure import QUICK, Effort, disagreements, milliseconds, time_in_turns
from tidegate.bench.peers import Candidate, Loop, Tidegate, draw, native
from tidegate.bench.rows import MODES, Row
from tidegate.cells import Cell
from tidegate.compile.select import BACKENDS
from tidegate.errors import ConfigError

SEED = 0


@dataclass(frozen=True)
class Plan:
    """What is timed. `backends` are timed besides "auto"."""

    cells: tuple[str, ...]
    sizes: tuple[Size, ...]
    backends: tuple[str, ...]
    effort: Effort
    threads: int
    first_calls: tuple[str, ...]


def make_plan(
    cells: str | None = None,
    sizes: str | None = None,
    backend: str | None = None,
    *,
    quick: bool = False,
    threads: int = 2,
) -> Plan:
    """Read what was asked for, names with commas between, or raise `ConfigError`; nothing asked for means all."""
    if threads < 1:
        raise ConfigError("reading --threads", expected="a positive whole number", got=str(threads), hint="--threads 2")
    named = _names(cells) or tuple(CASES)
    for cell in named:
        CASES[cell]
    backends = _names(backend)
    for name in backends:
        BACKENDS[name]
    return Plan(
        cells=named,
        sizes=read_sizes(sizes) if sizes else (QUICK_SIZES if quick else GRID),
        backends=tuple(name for name in backends if name != "auto"),
        effort=QUICK if quick else Effort(),
        threads=threads,
        first_calls=named[-1:] if quick else named,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(","))) if text else ()


def measure(plan: Plan, tell: Callable[[str], None]) -> Iterator[Row]:
    """Yield every row as it is measured; `tell` is given a line about what cannot be. Sets torch's threads."""
    torch.set_num_threads(plan.threads)
    absent = jax_scan.start(plan.threads)
    if absent:
        tell(absent)
    for cell in plan.cells:
        for size in plan.sizes:
            yield from measure_size(cell, CASES[cell](), size, plan, with_jax=absent is None)


def measure_size(name: str, case: Case, size: Size, plan: Plan, *, with_jax: bool) -> Iterator[Row]:
    """Yield the rows of one cell at one size, forward then train, on weights and input of a fixed seed."""
    torch.manual_seed(SEED)
    cell = case.cell(size.hidden)
    x = torch.randn(size.batch, size.steps, size.hidden)
    dy = torch.randn_like(x)
    ours = [Tidegate(cell, backend, x, dy) for backend in ("auto", *plan.backends)]
    refused = {layer.name: reason for layer in ours if (reason := layer.refusal())}
    candidates: list[Candidate] = [layer for layer in ours if layer.name not in refused]
    candidates += _peers(case, cell, x, dy, with_jax=with_jax)
    first = {mode: {c.name: milliseconds(c.timed(mode)) for c in candidates} for mode in MODES}
    masks = draw(case.masks, x) if case.masks else None
    wrong = tuple(disagreements(candidates, cell, x, dy, masks))
    for mode in MODES:
        times = {} if wrong else time_in_turns({c.name: c.timed(mode) for c in candidates}, plan.effort)
        yield Row(name, size, mode, times, first[mode], ours[0].chosen(mode), refused, wrong)


def _peers(case: Case, cell: Cell, x: Tensor, dy: Tensor, *, with_jax: bool) -> list[Candidate]:
    weights: dict[str, Tensor] = dict(cell.named_parameters())
    peers: list[Candidate] = [] if case.native is None else [native(case.native, weights, x, dy)]
    peers.append(Loop(case, weights, x, dy))
    return [*peers, jax_scan.JaxScan(case, weights, x, dy)] if with_jax else peers


def first_calls(plan: Plan) -> Iterator[FirstCall]:
    """Yield what the first call of each cell costs."""
    for name in plan.first_calls:
        yield first_call(name, CASES[name], plan.threads)


def machine(plan: Plan) -> dict[str, Any]:
    """Return what the figures depend on: versions, processor, threads."""
    versions = {name: _version(name) for name in ("tidegate", "torch", "jax", "llvmlite")}
    return {
        "versions": {name: found for name, found in versions.items() if found},
        "python": platform.python_version(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "threads": plan.threads,
        "rounds": plan.effort.rounds,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
