"""Every technique on the task on which its paper shows it, OFF and ON: same seeds, same budget.

python benchmarks/techniques.py [--only adding,copy] [--seeds 5] [--workers 2] [--out DIR] [--data DIR] [--quick]

Writes `runs.jsonl` (a line for each run, as it ends), `techniques.json` and `techniques.html` to `--out`. Started
again, it does only the runs that are missing. `--quick` takes a few steps of everything, to see that it runs. Tasks
whose data are absent are left out, and named. Exit code 1: what had to hold does not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from _archives import DATA
from trials import records, show
from trials.catalogue import TASKS
from trials.page import page
from trials.pool import Job, done
from trials.records import Record
from trials.verdict import checked, verdicts

from tidegate.files import write_atomically


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then show everything; return 1 where a check failed."""
    options = _options(arguments)
    names = [name for name in options.only or TASKS if _has_data(name, options.data)]
    jobs = [
        Job(name, arm.name, seed, options.data, options.quick)
        for name in names
        for arm in TASKS[name].arms
        for seed in range(min(options.seeds, arm.seeds))
    ]
    path, wanted = options.out / "runs.jsonl", {job.key: job for job in jobs}
    found = {record.key: record for record in records.read(path) if record.key in wanted}
    missing = [job for key, job in wanted.items() if key not in found]
    print(f"{len(jobs)} runs, {len(found)} done before; {options.workers} processes", flush=True)
    start = time.perf_counter()
    for number, record in enumerate(done(missing, options.workers), 1):
        records.append(path, record)
        found[record.key] = record
        print(show.progress(number, len(missing), record, TASKS[record.task].problem), flush=True)
    return _tell(names, [found[key] for key in wanted], options.out, time.perf_counter() - start)


def _tell(names: list[str], runs: list[Record], out: Path, seconds: float) -> int:
    """Print the tables, write JSON and the page; return the exit code."""
    rows = {name: verdicts(name, TASKS[name], runs) for name in names}
    checks = [check for name in names for check in checked(name, TASKS[name], runs)]
    for name in names:
        print(show.table(TASKS[name], name, rows[name], runs))
    print(show.closing(checks, runs, seconds))
    told = {"rows": [asdict(row) for each in rows.values() for row in each], "checks": [asdict(c) for c in checks]}
    write_atomically(out / "techniques.json", json.dumps(told, indent=1, ensure_ascii=False).encode())
    write_atomically(out / "techniques.html", page(TASKS, rows, checks, runs).encode())
    print(f"written to {out / 'techniques.html'}")
    return 0 if all(check.holds is not False for check in checks) else 1


def _has_data(name: str, data: Path) -> bool:
    needed = TASKS[name].problem.needs
    if needed is None or (data / needed).exists():
        return True
    print(f"{name} is left out: no {needed} in {data}", file=sys.stderr)
    return False


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_names, metavar="NAME,…", help=f"among {', '.join(TASKS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("bench-output"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
