"""On disk and in memory are one table: same rows, same columns, same notes, same errors."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.data import encode, source, spool
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import DataError


def both(data: object, **options: str | None) -> tuple[Table, Table]:
    memory, disk = (
        load_table(open_source(data), **options),
        load_table(open_source(data), memory_limit_bytes=0, **options),
    )
    assert (memory.in_memory, disk.in_memory) == (True, False)
    return memory, disk


def assert_same(memory: Table, disk: Table) -> None:
    assert memory.ids == disk.ids
    assert memory.columns == disk.columns
    assert memory.notes == disk.notes
    np.testing.assert_array_equal(memory.offsets, disk.offsets)
    for name in memory.columns:
        whole = disk.read(name, 0, disk.rows)
        assert whole.dtype == memory.read(name, 0, 1).dtype
        np.testing.assert_array_equal(whole, memory.read(name, 0, memory.rows))
        np.testing.assert_array_equal(disk.read(name, 1, 3), memory.read(name, 1, 3))


def long_table(seed: int, sequences: int, most: int, shuffled: bool) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, most + 1, sequences)
    owner = np.repeat(random.permutation(sequences), lengths)
    rows = owner.size
    words = np.array(["calm", "breeze", "gale", None], dtype=object)
    frame = pl.DataFrame(
        {
            "unit": [f"u{i}" for i in owner],
            "minute": np.concatenate([random.permutation(n * 3)[:n] for n in lengths]) / 4,
            "value": np.where(random.random(rows) < 0.2, np.nan, random.normal(size=rows)),
            "wind": words[random.integers(0, 4, rows)].tolist(),
            "site": [f"s{i % 3}" for i in owner],
            "flag": [None if r < 0.1 else r < 0.5 for r in random.random(rows)],
            "at": pl.Series(random.integers(0, 10**15, rows)).cast(pl.Datetime("us")),
        }
    )
    return frame[random.permutation(rows)] if shuffled else frame.sort("unit", "minute", maintain_order=True)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_CHUNK_ROWS", 7)
    monkeypatch.setattr(encode, "_MOST_STEPS", 5)
    monkeypatch.setattr(spool, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(spool, "BUCKET_BYTES", 600)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    sequences=st.integers(1, 12),
    most=st.integers(1, 40),
    shuffled=st.booleans(),
    timed=st.booleans(),
)
def test_disk_equals_memory(seed: int, sequences: int, most: int, shuffled: bool, timed: bool) -> None:
    frame = long_table(seed, sequences, most, shuffled)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in (
            (source, "_CHUNK_ROWS", 7),
            (spool, "_BLOCK_ROWS", 3),
            (spool, "BUCKET_BYTES", 600),
        ):
            patch.setattr(module, name, value)
        memory, disk = both(frame, id="unit", time="minute" if timed else None)
        assert_same(memory, disk)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), sequences=st.integers(1, 12))
def test_rows_are_those_of_polars_sorted(seed: int, sequences: int) -> None:
    frame = long_table(seed, sequences, 20, shuffled=True)
    table = load_table(open_source(frame), id="unit", time="minute", memory_limit_bytes=0)
    order = {name: i for i, name in enumerate(frame["unit"].unique(maintain_order=True))}
    expected = frame.sort(pl.col("unit").replace_strict(order), "minute")
    np.testing.assert_array_equal(table.read("value", 0, table.rows), expected["value"].to_numpy())
    np.testing.assert_array_equal(table.read("at", 0, table.rows), expected["at"].cast(pl.Int64).to_numpy())
    assert [table.columns["wind"].levels[c] if c >= 0 else None for c in table.read("wind", 0, table.rows)] == expected[
        "wind"
    ].to_list()
    assert table.ids == list(order)


@pytest.mark.usefixtures("small_pieces")
def test_one_long_unsorted_sequence_is_dealt_out_by_time() -> None:
    minute = np.random.default_rng(0).permutation(2000)
    memory, disk = both({"minute": minute, "x": minute * 0.5}, time="minute")
    assert_same(memory, disk)
    np.testing.assert_array_equal(disk.read("minute", 0, 2000), np.arange(2000.0))


@pytest.mark.usefixtures("small_pieces")
def test_nested_rows_and_vectors() -> None:
    random = np.random.default_rng(1)
    lengths = random.integers(1, 9, 30)
    frame = pl.DataFrame(
        {
            "key": [f"k{i}" for i in range(30)],
            "t": [random.permutation(n).tolist() for n in lengths],
            "v": pl.Series(
                [random.normal(size=(n, 2)).tolist() for n in lengths], dtype=pl.List(pl.Array(pl.Float64, 2))
            ),
        }
    )
    memory, disk = both(frame, id="key", time="t")
    assert_same(memory, disk)
    assert disk.columns["v"].width == 2


@pytest.mark.usefixtures("small_pieces")
def test_repeated_time_far_apart_is_found_on_disk() -> None:
    minute = [*range(100), 3]
    with pytest.raises(DataError, match=r"duplicate time 3 in rows 4 and 101"):
        load_table(open_source({"minute": minute}), time="minute", memory_limit_bytes=0)


def test_files_go_with_the_table_and_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    table = load_table(open_source({"x": [1.0, 2.0]}), memory_limit_bytes=0)
    assert len(list(tmp_path.iterdir())) == 1
    del table
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError):
        load_table(open_source({"t": [1, 1]}), time="t", memory_limit_bytes=0)
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_our_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool._ColumnFiles, "append", full)
    with pytest.raises(DataError, match=r"No space left.*TMPDIR"):
        load_table(open_source({"x": [1.0]}), memory_limit_bytes=0)
