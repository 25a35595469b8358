"""A run that is killed and resumed ends byte-identical to one that was not (B6)."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tidegate.demo import digits_frames

OPTIONS = ["--target", "digit", "--id", "image", "--time", "row", "--epochs", "6", "--hidden-size", "24", "--quiet"]


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tidegate", "train", *words], stdout=subprocess.DEVNULL)


def kill_and_resume(folder: Path, kills: int, seed: int) -> None:
    data = folder / "digits.csv"
    digits_frames()[0].write_csv(data)
    began = time.monotonic()
    assert start(str(data), *OPTIONS, "--out", str(folder / "whole")).wait() == 0
    whole_seconds = time.monotonic() - began
    expected = (folder / "whole" / "model.safetensors").read_bytes()
    moments = random.Random(seed)
    run = folder / "killed"
    died = 0
    for _ in range(kills):
        process = start(str(data), *OPTIONS, "--resume", str(run))
        try:
            process.wait(timeout=moments.uniform(0.3, 1.0) * whole_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            died += 1
        if (run / "report.html").exists():
            break
    assert died, "no kill came in time"
    assert start(str(data), *OPTIONS, "--resume", str(run)).wait() == 0
    assert (run / "model.safetensors").read_bytes() == expected
    assert (run / "metrics.jsonl").read_bytes() == (folder / "whole" / "metrics.jsonl").read_bytes()
    assert not list(run.rglob(".*.json*")), "half-written files are left"


def test_killed_twice(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=2, seed=1)


@pytest.mark.slow
def test_killed_ten_times(tmp_path: Path) -> None:
    for seed in range(10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        kill_and_resume(folder, kills=2, seed=seed)
