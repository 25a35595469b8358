"""Fixtures that every test may use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tidegate", deadline=None)
settings.load_profile("tidegate")


# Compiled code is kept for this run alone, by all its processes: the first one names the folder for the others.
if "TIDEGATE_CACHE" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="tidegate-cache-")
    os.environ["TIDEGATE_CACHE"] = _cache.name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout, or the one TIDEGATE_DATA names."""
    named = os.environ.get("TIDEGATE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "INDEX.md").exists():
        pytest.skip(f"real data is absent: no INDEX.md in {folder}")
    return folder


Outcome = tuple[int, str, str]


@pytest.fixture
def tidegate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run the command line in an empty folder; return exit code, standard output and standard error."""
    from tidegate.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        monkeypatch.setattr("sys.argv", ["tidegate", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return (0 if code is None else int(code)), said.out, said.err

    return run
