"""A long-format Parquet larger than memory trains an epoch in bounded memory.

`python benchmarks/large_table.py [--gigabytes 5] [--order sorted|time|shuffled] [--folder FOLDER]`

Makes a table of noise (it does not compress) with a label that depends on it, trains one epoch through the command
line, and prints the peak resident memory of that process. `sorted` has the rows of a sequence together, `time` has
all sequences side by side in order of time, `shuffled` has the rows of every thousand sequences in random order.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

STEPS, VALUES, BLOCK_ROWS = 500, 8, 500_000


def block(sequences: range, steps: range, order: str) -> pl.DataFrame:
    """Return some steps of some sequences; every second sequence is labelled, and its first value lies higher."""
    random = np.random.default_rng([sequences.start, steps.start])
    label = np.arange(sequences.start, sequences.stop) % 2
    x = random.normal(size=(len(sequences), len(steps), VALUES))
    x[:, :, 0] += 0.3 * (2 * label[:, None] - 1)
    frame = pl.DataFrame(
        {
            "stay": np.repeat(np.arange(sequences.start, sequences.stop), len(steps)),
            "minute": np.tile(np.arange(steps.start, steps.stop), len(sequences)),
            **{f"x{i}": x[:, :, i].ravel() for i in range(VALUES)},
            "label": np.repeat(label, len(steps)),
        }
    )
    if order == "time":
        return frame.sort("minute", maintain_order=True)
    return frame.sample(fraction=1, shuffle=True, seed=sequences.start) if order == "shuffled" else frame


def make(path: Path, gigabytes: float, order: str) -> None:
    """Write blocks of bounded size, then stream them into one file."""
    total = max(2, round(gigabytes * 1e9 / (STEPS * VALUES * 8)))
    many, long = (total, max(1, BLOCK_ROWS // total)) if order == "time" else (BLOCK_ROWS // STEPS, STEPS)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        files = []
        for first in range(0, total, many):
            for step in range(0, STEPS, long):
                files.append(Path(folder) / f"{len(files):05d}.parquet")
                rows = block(range(first, min(first + many, total)), range(step, min(step + long, STEPS)), order)
                rows.write_parquet(files[-1])
        pl.scan_parquet(files).sink_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--order", choices=("sorted", "time", "shuffled"), default="sorted")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    path = options.folder / f"large-{options.order}-{options.gigabytes:g}.parquet"
    if not path.exists():
        make(path, options.gigabytes, options.order)
    rows = pl.scan_parquet(path).select(pl.len()).collect().item()
    print(f"{path.name}: {path.stat().st_size / 1e9:.2f} GB, {rows:,} rows", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tidegate", "train", str(path), "--target", "label", "--id", "stay"]
        command += ["--time", "minute", "--epochs", "1", "--hidden-size", "32", "--out", f"{folder}/run", "--json"]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"one epoch: {seconds:.0f} s, peak resident memory {peak:.2f} GB, {json.loads(done.stdout)}")


if __name__ == "__main__":
    main()
