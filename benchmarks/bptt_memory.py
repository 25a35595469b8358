"""Peak memory of a training pass over longer and longer texts: windows with carried state, and the whole text at once.

    python benchmarks/bptt_memory.py [--out DIR] [--hidden-size 128] [--rows 8] [--window 128]

Each length is measured in a process of its own: the peak of its resident memory above what it held before the pass.
Prints a table and writes `bptt_memory.json` and a page with the curves.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from pathlib import Path

import numpy as np

from tidegate.files import write_atomically

LENGTHS = [1 << n for n in range(13, 22)]
MOST_AT_ONCE = 1 << 17
"""Beyond this, the whole text at once takes gigabytes."""


def peak_mib(length: int, window: int, rows: int, hidden_size: int) -> float:
    """Train once over `length` tokens in windows and return the mebibytes that it took."""
    import torch

    from tidegate.data.grouping import InMemory
    from tidegate.data.streams import Streams
    from tidegate.data.tokens import TokenRow
    from tidegate.data.vocabulary import Characters
    from tidegate.tasks.language import LanguageBlueprint
    from tidegate.tasks.network import Architecture
    from tidegate.train.loop import fit
    from tidegate.train.settings import TrainSettings

    torch.manual_seed(0)
    vocabulary = Characters(entries="".join(map(chr, range(97, 97 + 62))))
    network = LanguageBlueprint(
        column=None, vocabulary=vocabulary, architecture=Architecture(cell="lstm", hidden_size=hidden_size),
        embedding_size=hidden_size, tied=True,
    ).network()  # fmt: skip

    def one_pass(count: int, window: int) -> None:
        tokens = np.random.default_rng(0).integers(2, 64, count).astype(np.uint16)
        fit(
            network,
            Streams(TokenRow(InMemory(tokens), count, count, documents=1), rows, window),
            None,
            TrainSettings(epochs=1),
        )

    one_pass(4 * rows * 16, 16)  # what the first pass takes once and for all
    before = _most_kib()
    one_pass(length, window)
    return (_most_kib() - before) / 1024


def _most_kib() -> int:
    """Return the most memory that this process has had, in kibibytes.

    Linux tells it apart; what `getrusage` gives may be that of the process which started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(length: int, window: int, rows: int, hidden_size: int) -> float:
    """Return `peak_mib` of a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_mib, (length, window, rows, hidden_size))


def page(lengths: list[int], windows: list[float], whole: list[float | None], lead: str) -> str:
    """Return a page with both curves."""
    from tidegate.report.document import document
    from tidegate.report.figures import over_lengths
    from tidegate.report.markup import Plots, section

    plots = Plots()
    figure = over_lengths({"Windows, state carried": windows, "The whole text at once": whole}, lengths)
    shown = section("Memory", plots.frame(figure, "Mebibytes above those before the pass, at most.", wide=True))
    title = "Memory of truncated backpropagation through time"
    return document(title, title, lead, shown, plots)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--window", type=int, default=128)
    asked = parser.parse_args()
    windows, whole = [], []
    print(f"{'tokens':>10} {'windows':>10} {'at once':>10}   MiB")
    for length in LENGTHS:
        windows.append(measured(length, asked.window, asked.rows, asked.hidden_size))
        at_once = length <= MOST_AT_ONCE
        whole.append(measured(length, length, asked.rows, asked.hidden_size) if at_once else None)
        print(f"{length:10,} {windows[-1]:10.1f} {'' if whole[-1] is None else f'{whole[-1]:.1f}':>10}", flush=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    body = {"tokens": LENGTHS, "windows_mib": windows, "whole_mib": whole, "options": vars(asked) | {"out": None}}
    write_atomically(asked.out / "bptt_memory.json", json.dumps(body, indent=1).encode())
    lead = f"LSTM, {asked.hidden_size} units, {asked.rows} streams, windows of {asked.window} tokens."
    write_atomically(asked.out / "bptt_memory.html", page(LENGTHS, windows, whole, lead).encode())


if __name__ == "__main__":
    main()
