"""A run that is killed and resumed ends byte-identical to one that was not; an interrupted one can go on (B6)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tidegate.demo import digits_frames

OPTIONS = ["--target", "digit", "--id", "image", "--time", "row", "--hidden-size", "24"]
PATIENCE_SECONDS = 300


def start(data: Path, run: Path, epochs: int) -> subprocess.Popen[str]:
    words = ["train", str(data), *OPTIONS, "--epochs", str(epochs), "--resume", str(run), "--quiet"]
    return subprocess.Popen([sys.executable, "-m", "tidegate", *words], stderr=subprocess.PIPE, text=True)


def whole(folder: Path, epochs: int) -> Path:
    """Write the data, train on it without a break and return the run."""
    digits_frames()[0].write_csv(folder / "digits.csv")
    assert start(folder / "digits.csv", folder / "whole", epochs).wait() == 0
    return folder / "whole"


def await_change(process: subprocess.Popen[str], file: Path) -> None:
    """Wait until the process has written `file` anew; one that dies or stalls fails the test."""
    before, began = file.stat().st_mtime_ns if file.exists() else None, time.monotonic()
    while not file.exists() or file.stat().st_mtime_ns == before:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() - began < PATIENCE_SECONDS
        time.sleep(0.002)


def kill_and_resume(folder: Path, kills: int, epochs: int, seed: int) -> None:
    """Kill a run at random moments after an epoch's checkpoint, and some right when a checkpoint is being written."""
    expected, run, moments = whole(folder, epochs), folder / "killed", random.Random(seed)
    for number in range(kills):
        process = start(folder / "digits.csv", run, epochs)
        # The state is written before the pointer to it: waiting for it alone kills in the middle of a checkpoint.
        await_change(process, run / "checkpoint" if number % 3 == 2 else run / "metrics.jsonl")
        time.sleep(0 if number % 3 == 2 else moments.uniform(0, 1.0))
        assert process.poll() is None, "the run ended before it was killed"
        process.kill()
        process.wait()
    assert start(folder / "digits.csv", run, epochs).wait() == 0
    assert (run / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert (run / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    assert not list(run.rglob(".*.json*")), "half-written files are left"


def test_killed_twice(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=2, epochs=12, seed=1)


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=10, epochs=40, seed=2)


def test_an_interrupted_run_says_so_and_goes_on(tmp_path: Path) -> None:
    expected, run = whole(tmp_path, 6), tmp_path / "stopped"
    process = start(tmp_path / "digits.csv", run, 6)
    await_change(process, run / "metrics.jsonl")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert error == f"interrupted; to go on: tidegate train --resume {run}\n"
    assert start(tmp_path / "digits.csv", run, 6).wait() == 0
    assert (run / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
