"""What the first call of a cell costs, measured where nothing was called before: in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from tidegate.bench.cases import Case

CACHE = "TIDEGATE_CACHE"
BATCH, UNITS = 32, 64
LATER_CALLS = 5


@dataclass(frozen=True)
class FirstCall:
    """Seconds that the first training pass of a cell takes beyond later ones, gradients included.

    `fresh` with nothing compiled before, `kept` in a new process that finds the code on disk.
    """

    cell: str
    backend: str
    fresh: float
    kept: float


def first_call(name: str, case: type[Case], threads: int) -> FirstCall:
    """Measure the first call of a case with an empty folder of compiled code, then with the one it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        fresh, kept = (_in_new_process(case, threads, folder) for _ in range(2))
    return FirstCall(name, fresh["backend"], fresh["seconds"], kept["seconds"])


def _in_new_process(case: type[Case], threads: int, cache: str) -> dict[str, Any]:
    words = [sys.executable, "-m", __name__, inspect.getfile(case), case.__name__, str(threads)]
    done = subprocess.run(words, env={**os.environ, CACHE: cache}, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(file: str, case: str, threads: str) -> None:
    """Print backend and seconds of the case that `file` defines, as one JSON object."""
    import torch

    from tidegate.bench.peers import Tidegate
    from tidegate.compile.select import FEW_STEPS

    torch.set_num_threads(int(threads))
    x = torch.randn(BATCH, FEW_STEPS + 1, UNITS)  # as short as may be without a kernel of torch's own
    cell = runpy.run_path(file)[case]().cell(UNITS)
    # What torch itself does once in a process is not the cell's.
    Tidegate(cell, "reference", x, x).timed("train")()
    layer = Tidegate(cell, "auto", x, x)
    train = layer.timed("train")
    start = perf_counter()
    train()
    seconds = perf_counter() - start
    later = []
    for _ in range(LATER_CALLS):
        start = perf_counter()
        train()
        later.append(perf_counter() - start)
    print(json.dumps({"backend": layer.chosen("train"), "seconds": max(0.0, seconds - statistics.median(later))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
