"""A saved model is whole: the earlier one or the new one, whenever the writing was cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

import tidegate as tg
from tidegate import artifact, files
from tidegate.artifact import DESCRIPTION, WEIGHTS
from tidegate.errors import ArtifactError
from tidegate.model import Model


def fitted(seed: int) -> Model:
    rows = [{"id": i, "x": (i % 2) + t / 10, "y": "ab"[i % 2]} for i in range(12) for t in range(3)]
    return tg.fit(pl.DataFrame(rows), "y", id="id", epochs=1, hidden_size=3, seed=seed, quiet=True)


@pytest.fixture(scope="module")
def models() -> tuple[Model, Model]:
    return fitted(1), fitted(2)


def same(a: Model, b: Model) -> bool:
    other = b.network.state_dict()
    return a.metrics == b.metrics and all(torch.equal(v, other[k]) for k, v in a.network.state_dict().items())


class CutError(Exception):
    """The process ends here."""


def cut_before(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `call`-th move of a file into place, counted from 0, never happen."""
    real, left = files.os.replace, [call]

    def replace(source: Any, target: Any) -> None:
        if left[0] == 0:
            raise CutError
        left[0] -= 1
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)


def save_cut(model: Model, path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        cut_before(call, patch)
        with pytest.raises(CutError):
            model.save(path)


@pytest.mark.parametrize("call", range(3))
def test_a_cut_leaves_one_of_both(
    call: int, models: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = models
    old.save(tmp_path / "m")
    save_cut(new, tmp_path / "m", call, monkeypatch)
    assert same(tg.load(tmp_path / "m"), new if call == 2 else old)
    save_cut(old, tmp_path / "m", 1, monkeypatch)
    assert same(tg.load(tmp_path / "m"), new if call == 2 else old)
    new.save(tmp_path / "m")
    assert same(tg.load(tmp_path / "m"), new)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [DESCRIPTION, WEIGHTS]


def test_a_newer_format_is_named(models: tuple[Model, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(artifact, "_FORMAT", 2)
        models[0].save(tmp_path / "m")
    with pytest.raises(ArtifactError, match=r"expected format 1, .*got format 2, written by version"):
        tg.load(tmp_path / "m")


def test_loading_leaves_the_random_state_alone(models: tuple[Model, Model], tmp_path: Path) -> None:
    models[0].save(tmp_path / "m")
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    tg.load(tmp_path / "m")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("place", ["file/m", "/proc/m", "file", "full"])
def test_a_place_that_cannot_be(place: str, models: tuple[Model, Model], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    with pytest.raises(ArtifactError, match="saving the model to"):
        models[0].save(tmp_path / place)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "full"]
