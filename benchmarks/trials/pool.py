"""Runs in processes of one thread each: small models use two cores better so than with two threads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from trials.arms import digest
from trials.catalogue import TASKS
from trials.records import Record
from trials.run import run


@dataclass(frozen=True)
class Job:
    """A run to do: names and numbers, so that any process can look up the rest."""

    task: str
    arm: str
    seed: int
    data: Path
    quick: bool

    @property
    def key(self) -> tuple[str, str, int, str]:
        """What its record will be known by."""
        task = TASKS[self.task]
        return (self.task, self.arm, self.seed, digest(task.problem, task.arm(self.arm), quick=self.quick))


def do(job: Job) -> Record:
    """Do a job, in this process."""
    task = TASKS[job.task]
    return run(job.task, task, task.arm(job.arm), job.seed, job.data, quick=job.quick)


def done(jobs: Sequence[Job], workers: int) -> Iterator[Record]:
    """Yield the record of every job as it is done; the first error ends all."""
    if workers == 1:
        yield from map(do, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin) as pool:
        try:
            for future in as_completed([pool.submit(do, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin() -> None:
    """Make this a process of one thread, which ends with the one that started it, even where that is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
