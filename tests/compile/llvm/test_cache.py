"""Object code on disk: whole, checked, bounded, and never in the way."""

from __future__ import annotations

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate.compile.llvm import cache
from tidegate.compile.llvm.cache import FOLDER, DiskCache, disk_cache

ONE, TWO, THREE = (digit * 64 for digit in "123")
posix = pytest.mark.skipif(os.name != "posix", reason="folders have no mode bits here")


@pytest.fixture(autouse=True)
def forget_warnings() -> None:
    cache._opened.cache_clear()
    cache._warn_once.cache_clear()


def entry(folder: Path, digest: str) -> Path:
    return folder / f"{digest}.object"


def aged(folder: Path, digest: str, seconds: int) -> None:
    os.utime(entry(folder, digest), (seconds, seconds))


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path)
    kept.store(ONE, b"\x00code\xff")
    assert DiskCache(tmp_path).load(ONE) == b"\x00code\xff"
    assert kept.load(TWO) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:20],
        lambda whole: b"",
        lambda whole: whole + b"\x00",
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: b"X" + whole[1:],
        lambda whole: whole[:8] + b"\xff" + whole[9:],
    ],
    ids=["truncated", "within the header", "empty", "longer", "one bit", "magic", "version"],
)
def test_a_damaged_entry_is_never_returned_and_goes(tmp_path: Path, damage) -> None:
    kept = DiskCache(tmp_path)
    kept.store(ONE, b"some code")
    entry(tmp_path, ONE).write_bytes(damage(entry(tmp_path, ONE).read_bytes()))
    assert kept.load(ONE) is None
    assert not entry(tmp_path, ONE).exists()
    kept.store(ONE, b"some code")
    assert kept.load(ONE) == b"some code"


def test_an_entry_under_another_name_is_not_believed(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path)
    kept.store(ONE, b"code of one")
    entry(tmp_path, ONE).rename(entry(tmp_path, TWO))
    assert kept.load(TWO) is None


def test_the_least_recently_used_leaves_first(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path, limit_bytes=2500)
    for age, digest in enumerate((ONE, TWO), start=1000):
        kept.store(digest, b"x" * 1000)
        aged(tmp_path, digest, age)
    assert kept.load(ONE) is not None  # now TWO is the one used longest ago
    kept.store(THREE, b"x" * 1000)
    assert [kept.load(digest) is not None for digest in (ONE, TWO, THREE)] == [True, False, True]


def test_the_folder_stays_within_its_limit_and_keeps_what_is_not_ours(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path, limit_bytes=5000)
    (tmp_path / "notes.txt").write_bytes(b"n" * 9000)
    for number in range(30):
        kept.store(f"{number:064x}", b"x" * (300 + number))
    ours = [path for path in tmp_path.iterdir() if path.suffix == ".object"]
    assert 0 < sum(path.stat().st_size for path in ours) <= 5000
    assert (tmp_path / "notes.txt").stat().st_size == 9000


def test_what_a_killed_process_left_half_written_goes_in_its_turn(tmp_path: Path) -> None:
    left = tmp_path / f".{ONE}.object.abc123"
    left.write_bytes(b"x" * 3000)
    os.utime(left, (1000, 1000))
    DiskCache(tmp_path, limit_bytes=2000).store(TWO, b"code")
    assert not left.exists()
    assert DiskCache(tmp_path).load(TWO) == b"code"


def test_writers_that_evict_each_other_disturb_nobody(tmp_path: Path) -> None:
    def work(seed: int) -> None:
        kept = DiskCache(tmp_path, limit_bytes=3000)
        for turn in range(12):
            number = (seed * 5 + turn) % 8
            kept.store(f"{number:064x}", bytes([number]) * 500)
            assert kept.load(f"{number:064x}") in (None, bytes([number]) * 500)

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")  # a write may lose its scratch file to another's eviction
        list(pool.map(work, range(4)))
    DiskCache(tmp_path, limit_bytes=3000).store(ONE, b"last")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3000


def test_the_folder_is_named_by_the_environment_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "new" / "place"))
    opened = disk_cache()
    assert opened is not None
    assert opened.folder.is_relative_to(tmp_path / "new" / "place")
    if os.name == "posix":
        assert opened.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's folder")
def test_without_a_name_the_platform_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    opened = disk_cache()
    assert opened is not None
    assert opened.folder == tmp_path / "tidegate" / "native"


def test_a_name_that_is_empty_turns_it_off(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setenv(FOLDER, "")
    assert disk_cache() is None
    assert not recwarn.list


def test_a_folder_that_cannot_be_made_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="compiled code is not kept on disk: .*file"):
        assert disk_cache() is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert disk_cache() is None


def test_a_folder_that_takes_no_entry_warns_once(tmp_path: Path) -> None:
    kept = DiskCache(tmp_path / "gone")
    with pytest.warns(RuntimeWarning, match="compiled code is not kept on disk"):
        kept.store(ONE, b"code")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.store(ONE, b"code")
    assert kept.load(ONE) is None


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "native").chmod(mode)
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.warns(RuntimeWarning, match="can be written by others"):
        assert disk_cache() is None


@posix
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        assert disk_cache() is None
