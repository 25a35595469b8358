"""What `inspect` says of a table, against figures counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data.raw import Chunk
from tidegate.data.source import open_source
from tidegate.errors import ConfigError, DataError
from tidegate.inspection import _guess_id, inspect_table, show


@pytest.fixture
def stays() -> pl.DataFrame:
    """Three stays of 3, 2 and 1 steps."""
    return pl.DataFrame(
        {
            "stay": [7, 7, 7, 8, 8, 9],
            "minute": [0, 10, 20, 0, 30, 5],
            "pulse": [60.0, None, 80.0, 70.0, 90.0, None],
            "ward": ["A", "A", "A", "B", "B", "A"],
            "died": [False, False, False, True, True, False],
        }
    )


def _column(profile: dict, name: str) -> dict:
    return next(c for c in profile["columns"] if c["name"] == name)


def test_counts_and_ranges(stays: pl.DataFrame) -> None:
    profile = inspect_table(stays, target=("died",), id="stay", time="minute")
    assert (profile["rows"], profile["sequences"], profile["guessed"]) == (6, 3, [])
    assert profile["lengths"] == {"min": 1, "median": 2.0, "max": 3}
    pulse = _column(profile, "pulse")
    assert (pulse["missing"], pulse["missing_share"]) == (2, pytest.approx(1 / 3))
    assert (pulse["min"], pulse["max"], pulse["mean"]) == (60, 90, 75)
    assert _column(profile, "ward")["top"] == {"A": 4, "B": 2}
    assert profile["task"] == "classification"
    assert profile["classes"]["counts"] == {"False": 2, "True": 1}
    assert (profile["classes"]["rarest"], profile["classes"]["rarest_share"]) == ("True", pytest.approx(1 / 3))


def test_gaps_leave_out_the_step_from_one_sequence_to_the_next(stays: pl.DataFrame) -> None:
    gaps = inspect_table(stays, id="stay", time="minute")["gaps"]
    assert (gaps["typical"], gaps["largest"], gaps["uneven_share"]) == (10, 30, pytest.approx(1 / 3))


def test_id_and_time_are_guessed_and_said_to_be_guesses(stays: pl.DataFrame) -> None:
    profile = inspect_table(stays)
    assert (profile["id"], profile["time"], profile["guessed"]) == ("stay", "minute", ["id", "time"])
    assert any("--id stay" in note for note in profile["notes"])
    assert "stay (looks like it)" in show(profile)
    assert {s["target"]: s["task"] for s in profile["suggestions"]} == {
        "pulse": "forecasting", "ward": "classification", "died": "classification",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "id", "time"),
    [
        ({"CaseID": [1, 1, 2], "EndTimestamp": [datetime(2024, 1, d) for d in (1, 2, 3)]}, "CaseID", "EndTimestamp"),
        ({"row_id": [1, 2, 3], "ds": ["2024-01-01", "2024-01-02", "2024-01-03"]}, None, "ds"),
        ({"valid": [1, 1, 2], "sometimes": [1, 2, 3]}, None, None),
        ({"width": [1, 1, 2], "seen": [datetime(2024, 1, d) for d in (1, 2, 3)]}, None, "seen"),
        ({"timestamp": ["a", "b", "c"], "series": ["x", "x", "y"]}, "series", None),
    ],
)  # fmt: skip
def test_a_guess_goes_by_name_and_content(columns: dict, id: str | None, time: str | None) -> None:
    profile = inspect_table(pl.DataFrame({**columns, "value": [0.5, 0.25, 0.125]}))
    assert (profile["id"], profile["time"]) == (id, time)


def test_a_guess_that_does_not_fit_is_dropped_and_named() -> None:
    profile = inspect_table(pl.DataFrame({"case": [1, 1, 2], "year": [2024, 2024, 2024], "x": [1.0, 2.0, 3.0]}))
    assert (profile["id"], profile["time"], profile["guessed"]) == ("case", None, ["id"])
    assert any("'year'" in note and "does not fit" in note for note in profile["notes"])


def read_until_decided(column: pl.Series) -> tuple[str | None, int]:
    """Guess the id of a table with one column; return it and the rows that were looked at, in chunks of 100."""
    source, looked = open_source(column.to_frame()), 0
    real = source.raw.chunks

    def chunks(names: Sequence[str]) -> Iterator[Chunk]:
        nonlocal looked
        for chunk in real(names):
            for at in range(0, chunk.frame.height, 100):
                looked += 100
                yield Chunk(chunk.frame.slice(at, 100), at)

    guess = _guess_id(replace(source, raw=replace(source.raw, chunks=chunks)), ())
    return guess, looked


def test_an_id_is_guessed_by_its_first_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    unique = pl.Series("id", range(1000))
    assert read_until_decided(unique) == (None, 1000)
    assert read_until_decided(pl.concat([unique[:150], unique])) == ("id", 200)
    monkeypatch.setattr("tidegate.inspection._MOST_IDS", 300)
    assert read_until_decided(unique) == (None, 500)


def test_what_is_given_must_fit(stays: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="duplicate time 0"):
        inspect_table(stays.drop("stay"), time="minute")
    with pytest.raises(ConfigError, match="'dies'"):
        inspect_table(stays, target=("dies",))


def test_labels_are_counted_per_sequence_and_tags_per_step() -> None:
    frame = pl.DataFrame({"id": [1, 1, 2, 3], "a": [1, 1, 0, 1], "b": [0, 0, 0, 1], "tag": ["x", "y", "x", "x"]})
    labels = inspect_table(frame, target=("a", "b"), id="id", task="multilabel")["classes"]
    assert labels["counts"] == {"a": 2, "b": 1}
    assert labels["rarest_share"] == pytest.approx(1 / 3)
    tags = inspect_table(frame, target=("tag",), id="id")["classes"]
    assert (tags["of"], tags["counts"]) == ("steps", {"x": 3, "y": 1})


def test_a_profile_is_json_and_its_text_is_aligned(stays: pl.DataFrame) -> None:
    odd = stays.with_columns(empty=pl.lit(None, pl.Float64), when=pl.lit(datetime(2024, 5, 1)))
    profile = inspect_table(odd, target=("died",))
    assert json.loads(json.dumps(profile, allow_nan=False)) == profile
    assert _column(profile, "empty")["min"] is None
    assert profile["ignored"]["empty"] == "every value is missing"
    assert _column(profile, "when")["min"] == "2024-05-01T00:00:00"
    lines = show(profile).split("\n\n")[1].splitlines()
    assert len(lines) == 1 + len(odd.columns)
    at = lines[0].index("type")
    assert all(line[at - 1] == " " and line[at] != " " for line in lines)


def test_arrays_have_neither_id_nor_time() -> None:
    profile = inspect_table(np.arange(24.0).reshape(2, 4, 3))
    assert (profile["sequences"], profile["id"], profile["time"], profile["gaps"]) == (2, None, None, None)
    assert _column(profile, "x")["width"] == 3
    assert _column(profile, "x")["mean"] == pytest.approx(11.5)


@pytest.mark.data
def test_a_real_series(shared_data: Path) -> None:
    profile = inspect_table(shared_data / "ett" / "ETTh1.csv.gz", target=("OT",))
    assert (profile["rows"], profile["time"], profile["task"]) == (17420, "date", "forecasting")
    assert (profile["gaps"]["typical"], profile["gaps"]["uneven_share"]) == (3600.0, 0.0)


def test_labels_written_in_some_rows_only_are_counted_by_sequence() -> None:
    frame = pl.DataFrame(
        {"run": [1, 1, 2, 2, 3, 3], "x": [1.0, 2, 3, 4, 5, 6], "ok": [None, "yes", "no", None, "Yes", "yes"]}
    )
    profile = inspect_table(frame, target=("ok",), id="run")
    assert profile["classes"]["counts"] == {"yes": 2, "no": 1}
    roles = {c["name"]: c["role"] for c in inspect_table(frame, id="run")["columns"]}
    assert roles["ok"] == "observed", "a value written in some rows only may not be known before them"
