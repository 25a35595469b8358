"""What stands on the disk after any kill: whole lines, whole states, nothing that was half written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_recovery import Model, Rows, Shuffled, dying_at, equal, train
from torch import Tensor

from tidegate.errors import TidegateError
from tidegate.train import checkpoint
from tidegate.train.loop import fit
from tidegate.train.settings import TrainSettings


class KilledError(BaseException):
    """Stands for a kill in the middle of a write."""


@pytest.mark.parametrize("file", ["state-5.safetensors", "state-5.json", "metrics.jsonl", "latest.json"])
@pytest.mark.parametrize("moved", [False, True], ids=["before", "after"])
def test_a_kill_at_any_write_of_the_last_epoch_loses_nothing(
    file: str, moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    expected = train(whole, checkpoint_every_seconds=60)
    written = 0

    def dying(path: Path, content: bytes) -> None:
        nonlocal written
        written += path.name == file
        last = path.name == file and (file.startswith("state") or written == 5)
        if not last or moved:
            real(path, content)
        if last:
            raise KilledError

    real = checkpoint.write_atomically
    with monkeypatch.context() as patched:
        patched.setattr("tidegate.train.checkpoint.write_atomically", dying)
        patched.setattr("tidegate.files.write_atomically", dying)
        with pytest.raises(KilledError):
            train(killed, checkpoint_every_seconds=60)
    assert equal(train(killed, resume=True, checkpoint_every_seconds=60), expected)
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert len(list((killed / "checkpoint").iterdir())) == 3


@pytest.mark.parametrize("resume", [True, False])
def test_half_written_files_of_a_killed_run_are_removed(resume: bool, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cut"):
        train(tmp_path, observer=_cut(dying_at(7)))
    stale = [tmp_path / ".metrics.jsonl.ab12", tmp_path / "checkpoint" / ".latest.json.ab12"]
    stale += [tmp_path / "checkpoint" / f".state-3.{kind}.ab12" for kind in ("json", "safetensors")]
    for path in stale:
        path.write_bytes(b"{")
    train(tmp_path, resume=resume)
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


def _cut(die: Any) -> Any:
    def observer(event: Any) -> None:
        try:
            die(event)
        except Exception as error:
            raise RuntimeError("cut") from error

    return observer


def test_a_new_run_starts_with_no_lines_of_an_old_one(tmp_path: Path) -> None:
    train(tmp_path, epochs=2)
    with pytest.raises(RuntimeError, match="cut"):
        train(tmp_path, observer=_cut(dying_at(1)))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_lines_are_strict_json_with_null_for_what_is_no_number(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=3, device="cpu")
    fit(Model((math.nan, 2.0, math.inf)), Shuffled(), Shuffled(), settings, run_dir=tmp_path)

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["valid_odd"] for row in rows] == [None, 2.0, None]


class Root(torch.autograd.Function):
    """The square root of what is exactly 0 from one step on: a finite value, and a gradient that is not."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * math.nan


class Broken(Model):
    """From its `bad`-th training step on the loss is finite and its gradient is not a number."""

    def __init__(self, bad: int) -> None:
        super().__init__()
        self.left = bad

    def loss(self, batch: Rows, prediction: Tensor) -> tuple[Tensor, int]:
        total, count = super().loss(batch, prediction)
        self.left -= self.training
        return total + (Root.apply(prediction.sum()) if self.left <= 0 and self.training else 0), count


@pytest.mark.parametrize("often", [1e-9, 60.0], ids=["in mid-epoch", "at its end"])
@pytest.mark.parametrize("validated", [True, False])
def test_weights_that_are_not_finite_are_refused_and_never_saved(often: float, validated: bool, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=4, device="cpu", checkpoint_every_seconds=often)
    valid = Shuffled() if validated else None
    with pytest.raises(TidegateError, match=r"training epoch 2, at or before step 6; expected finite weights; got lay"):
        fit(Broken(12), Shuffled(), valid, settings, run_dir=tmp_path)
    sound = Broken(1000)
    fit(sound, Shuffled(), valid, settings, run_dir=tmp_path, resume=True)
    assert all(bool(p.isfinite().all()) for p in sound.parameters())
