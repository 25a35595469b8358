"""Roles of columns and the task they imply (C3, C11, D1 to D4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidegate.data import encode
from tidegate.data.schema import Schema, first_values, infer_schema
from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import ConfigError, DataError


def plan(columns: dict[str, Any], target: str, ignore: tuple[str, ...] = (), **options: Any) -> Schema:
    source = open_source(pl.DataFrame(columns), ignore=ignore)
    table = load_table(source, id="run" if "run" in columns else None, time="t" if "t" in columns else None)
    return infer_schema(table, (target,), ignore=ignore, **options)


RUNS = {"run": [1, 1, 2, 2, 3, 3, 4, 4], "t": [0, 1] * 4}


@pytest.mark.parametrize(
    ("target", "task"),
    [
        (["a", "a", "b", "b"] * 2, "classification"),
        ([True, True, False, False] * 2, "classification"),
        ([0, 0, 1, 1] * 2, "classification"),
        ([0.5, 0.5, 1.25, 1.25] * 2, "regression"),
        ([7, 7, 8, 8, 9, 9, 10, 10], "regression"),
        (["a", "b", "b", "b"] * 2, "tagging"),
        ([0.5, 0.6, 1.25, 1.25] * 2, "forecasting"),
    ],
)
def test_the_target_implies_the_task(target: list[Any], task: str) -> None:
    assert plan({**RUNS, "x": np.arange(8.0), "y": target}, "y").task == task


def test_roles() -> None:
    found = plan(
        {
            **RUNS,
            "x": np.arange(8.0),
            "age": [30, 30, 40, 40, 50, 50, 60, 60],
            "empty": [None] * 8,
            "same": ["a"] * 8,
            "y": np.arange(8.0),
        },
        "y",
        horizon=1,
        known=("x",),
    )
    assert (found.id, found.time, found.targets) == ("run", "t", ("y",))
    assert found.inputs == ("x", "age")
    assert found.static == ("age",)
    assert found.known == ("x", "age")
    assert found.ignored == {
        "t": "a bare clock: its gaps are used, its value is not",
        "empty": "every value is missing",
        "same": "one value throughout",
    }


def test_ignored_columns_are_not_even_read() -> None:
    mixed = pl.Series(["1"] * 7 + ["one"])
    columns = {
        **{k: pl.Series(v).cast(pl.String) for k, v in RUNS.items()},
        "mixed": mixed,
        "y": ["a", "a", "b", "b"] * 2,
    }
    found = plan({**columns, "t": RUNS["t"], "x": np.arange(8.0)}, "y", ignore=("mixed",))
    assert found.ignored["mixed"] == "left out as asked"
    assert found.inputs == ("x",)
    with pytest.raises(DataError, match=r"reading ignore= for DataFrame; expected a column of the table; got 'mixd'"):
        open_source(pl.DataFrame(columns), ignore=("mixd",))


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_a_key_is_no_category_and_its_values_are_not_kept(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MOST_LEVELS", 5)
    frame = pl.DataFrame({**RUNS, "key": [f"k{i}" for i in range(7)] + [None], "y": ["a", "a", "b", "b"] * 2})
    table = load_table(open_source(frame), id="run", memory_limit_bytes=limit)
    info = table.columns["key"]
    assert (info.type, info.levels, info.missing) == ("text", None, 1)
    assert "free text or a key" in infer_schema(table, ("y",)).ignored["key"]
    with pytest.raises(ConfigError, match="column 'key' of type text"):
        infer_schema(table, ("key",))


def test_a_target_must_exist_and_be_no_role() -> None:
    with pytest.raises(ConfigError, match="got 'yy'"):
        plan({**RUNS, "y": np.arange(8.0)}, "yy")
    with pytest.raises(ConfigError, match="neither id nor time"):
        plan({**RUNS, "y": np.arange(8.0)}, "run")


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (("y", "y"), {}, "each target once; got 'y' twice"),
        (("gone",), {"ignore": ("gone",)}, "not ignored; got 'gone' in target= and in ignore="),
        (("y",), {"known": ("y",)}, "got 'y' in target= and in known="),
    ],
)
def test_options_that_contradict_each_other(targets: tuple[str, ...], options: Any, message: str) -> None:
    table = load_table(open_source(pl.DataFrame({**RUNS, "y": np.arange(8.0)})), id="run")
    with pytest.raises(ConfigError, match=message):
        infer_schema(table, targets, **options)


@pytest.mark.parametrize(
    ("first", "second", "task"),
    [
        ([0, 0, 1, 1] * 2, [1, 1, 1, 1, 0, 0, 0, 0], "multilabel"),
        ([0, 0, 1, 1] * 2, [True, True, False, False] * 2, "multilabel"),
        ([0, 0, 1, 1] * 2, [0.5, 0.5, 1, 1] * 2, "regression"),
        ([0, 1, 1, 1] * 2, [0, 0, 1, 1] * 2, "forecasting"),
        ([0.5, 1, 2, 3] * 2, [True, False, False, True] * 2, "forecasting"),
    ],
)
def test_several_targets_imply_the_task(first: list[Any], second: list[Any], task: str) -> None:
    table = load_table(open_source(pl.DataFrame({**RUNS, "x": np.arange(8.0), "a": first, "b": second})), id="run")
    assert infer_schema(table, ("a", "b")).task == task


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_a_label_may_be_written_in_some_rows_only(limit: int) -> None:
    label = [None, "u", None, "v", "u", None, None, None]
    other = [None, None, 2.0, None, 1.0, 1.0, 3.0, 4.0]
    frame = pl.DataFrame({**RUNS, "x": np.arange(8.0), "label": label, "other": other})
    table = load_table(open_source(frame), id="run", memory_limit_bytes=limit)
    assert [table.columns["label"].levels[c] if c >= 0 else None for c in first_values(table, "label")] == [
        "u", "v", "u", None,
    ]  # fmt: skip
    np.testing.assert_array_equal(first_values(table, "other"), [np.nan, 2, 1, 3])
    found = infer_schema(table, ("label",))
    assert found.task == "classification"
    assert "label" not in infer_schema(table, ("x",)).static
    with pytest.raises(DataError, match="changes within sequence 4"):
        infer_schema(table, ("other",), task="regression")


def test_a_label_far_into_a_long_sequence_is_found_on_disk() -> None:
    frame = pl.DataFrame({"y": [None] * 1000 + [3.0] + [None] * 999})
    assert first_values(load_table(open_source(frame), memory_limit_bytes=0), "y").tolist() == [3.0]


def test_types_are_those_that_read_other_tables_alike(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("run,x,asked,found\n" + "1,1,NA,NA\n1,2,a,a\n2,3,b,b\n2,4,NA,NA\n")
    table = load_table(open_source(tmp_path / "t.csv", kinds={"asked": "category"}), id="run")
    types = infer_schema(table, ("x",), horizon=1).types
    again = load_table(open_source(tmp_path / "t.csv", kinds=types, must_have=False), id="run")
    for read in (table, again):
        assert (read.columns["asked"].levels, read.columns["found"].levels) == (("NA", "a", "b"), ("a", "b"))
