"""Files that are whole or not there, whenever writing them is interrupted (B6)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tidegate.files import write_atomically


@pytest.mark.parametrize(("moved", "left"), [(False, b"old"), (True, b"new")])
def test_an_interruption_around_the_move_is_an_interruption(
    moved: bool, left: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, move = tmp_path / "state", os.replace
    path.write_bytes(b"old")

    def interrupted(*places: Any) -> None:
        if moved:
            move(*places)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == left
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
