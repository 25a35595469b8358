"""What is learnt on the training part alone, and what a batch of it holds (B6, C3, D4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tidegate.config import make_config
from tidegate.data.source import open_source
from tidegate.data.table import Table, load_table
from tidegate.errors import InputError
from tidegate.prepare import Prepared, prepare


def load(frame: pl.DataFrame, limit: int = 1 << 30) -> Table:
    return load_table(open_source(frame), id="run", time="t", memory_limit_bytes=limit)


def prepared(frame: pl.DataFrame, held: pl.DataFrame | None = None, limit: int = 1 << 30, **options: Any) -> Prepared:
    config = make_config({"id": "run", "time": "t", "batch_size": 4, **options})
    return prepare(load(frame, limit), config, None if held is None else load(held, limit))


def runs(count: int = 20, steps: int = 6) -> pl.DataFrame:
    random = np.random.default_rng(0)
    rows = [
        {
            "run": i,
            "t": t,
            "x": random.normal(),
            "zone": "abc"[i % 3],
            "on": bool(t % 2),
            "c": "pq"[i % 2],
            "y": float(i),
        }
        for i in range(count)
        for t in range(steps)
    ]
    return pl.DataFrame(rows)


def batches(found: Prepared) -> list[list[torch.Tensor | None]]:
    return [[b.dense, b.codes, b.lengths, b.target, b.history, b.known_dense] for b in found.train.batches(0)]


def same(first: list[list[torch.Tensor | None]], second: list[list[torch.Tensor | None]]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)]
    return all(
        a is b is None or (a is not None and b is not None and torch.equal(a.nan_to_num(-9), b.nan_to_num(-9)))
        for a, b in pairs
    )


@pytest.mark.parametrize("target", ["c", "y"])
def test_what_is_held_out_changes_nothing_that_is_learnt(target: str) -> None:
    frame = runs().drop("y" if target == "c" else "c")
    before = prepared(frame, target=target)
    held = np.unique(np.concatenate([b.rows.numpy() for b in before.valid.batches(0)])).tolist()
    assert 1 <= len(held) <= 6
    spoilt = frame.with_columns(
        x=pl.when(pl.col("run").is_in(held)).then(1e4).otherwise(pl.col("x")),
        zone=pl.when(pl.col("run").is_in(held)).then(pl.lit("new")).otherwise(pl.col("zone")),
    )
    if target == "y":
        spoilt = spoilt.with_columns(y=pl.when(pl.col("run").is_in(held)).then(1e5).otherwise(pl.col("y")))
    after = prepared(spoilt, target=target)
    assert after.blueprint == before.blueprint
    assert same(batches(before), batches(after))


def ramps(steps: int = 100, series: int = 2) -> pl.DataFrame:
    """`y` counts the steps, so that a batch shows which rows it was made of."""
    return pl.DataFrame(
        [
            {"run": i, "t": t, "y": 1000.0 * i + t, "k": 1000.0 * i + t, "x": 2.0 * t}
            for i in range(series)
            for t in range(steps)
        ]
    )


FORECAST = {"target": "y", "horizon": 5, "lookback": 8, "valid": 0.2, "known": ("k",)}


def test_the_future_is_held_out_and_changes_nothing_that_is_learnt() -> None:
    before = prepared(ramps(), **FORECAST)
    late = pl.col("t") >= 80
    columns = {n: pl.when(late).then(1e5).otherwise(pl.col(n)) for n in ("x", "y", "k")}
    after = prepared(ramps().with_columns(**columns), **FORECAST)
    assert after.blueprint == before.blueprint
    assert same(batches(before), batches(after))


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_a_window_holds_its_own_past_and_future(limit: int) -> None:
    found = prepared(ramps(), limit=limit, **FORECAST)
    task, known = found.blueprint.task, found.blueprint.known
    assert known is not None
    scale = known.dense[0]
    for loader, first, last in ((found.train, 5, 80), (found.valid, 80, 100)):
        origins = set()
        for b in loader.batches(0):
            past = b.history[..., 0].double() * task.std[0] + task.mean[0]
            ahead = b.target[..., 0].double() * task.std[0] + task.mean[0]
            told = b.known_dense[..., 0].double() * scale.std[0] + scale.mean[0]
            torch.testing.assert_close(told, ahead, atol=1e-3, rtol=0)
            for row, n in enumerate(b.lengths.tolist()):
                origin = round(float(ahead[row, 0]))
                torch.testing.assert_close(past[row, :n], torch.arange(origin - n, origin).double(), atol=1e-3, rtol=0)
                torch.testing.assert_close(ahead[row], torch.arange(origin, origin + 5).double(), atol=1e-3, rtol=0)
                assert n == min(8, origin % 1000)
                origins.add(origin)
        assert origins == {i * 1000 + t for i in (0, 1) for t in range(first, last - 4)}


def test_rows_without_truth_are_not_validated_on() -> None:
    frame = ramps().with_columns(y=pl.when(pl.col("t") < 90).then(pl.col("y")))
    found = prepared(frame, **FORECAST)
    targets = torch.cat([b.target for b in found.valid.batches(0)])
    assert not targets.isnan().any()
    assert found.sizes["valid_windows"] == 2 * (18 - 4)


def test_memory_and_disk_make_the_same_batches() -> None:
    for options in ({"target": "c"}, {"target": "on", "task": "tagging"}, FORECAST):
        frame = ramps() if options is FORECAST else runs()
        in_memory, on_disk = (prepared(frame, limit=limit, **options) for limit in (1 << 30, 0))
        assert on_disk.blueprint == in_memory.blueprint
        assert same(batches(in_memory), batches(on_disk))


def test_a_validation_table_is_used_and_learns_nothing() -> None:
    frame, valid = runs(), runs(count=5).with_columns(x=pl.lit(1e4), zone=pl.lit("new"))
    frame, valid = frame.drop("y"), valid.drop("y")
    found = prepared(frame, valid, target="c")
    assert found.sizes == {"train_sequences": 20, "valid_sequences": 5}
    assert found.blueprint == prepared(frame, runs(count=3).drop("y"), target="c").blueprint
    assert any("'zone'" in note for note in found.notes)


def test_classes_are_split_each_on_its_own() -> None:
    frame = runs(count=40).with_columns(c=pl.when(pl.col("run") < 30).then(pl.lit("p")).otherwise(pl.lit("q")))
    found = prepared(frame, target="c", valid=0.2)
    held = torch.cat([b.target for b in found.valid.batches(0)])
    assert torch.bincount(held).tolist() == [6, 2]


def test_labels_must_be_zero_or_one() -> None:
    frame = runs().with_columns(a=pl.col("run") % 2, b=pl.col("run") % 3)
    with pytest.raises(InputError, match=r"expected 0 and 1 .*; got 2\.0"):
        prepared(frame, target=("a", "b"), task="multilabel")


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_gaps_do_not_reach_from_one_sequence_into_the_next(limit: int) -> None:
    frame = runs().with_columns(t=pl.col("run") * 1000 + pl.col("t") ** 2)
    found = prepared(frame, target="c", limit=limit)
    assert found.blueprint.features.elapsed is not None
    for batch in found.train.batches(0):
        gaps = torch.expm1(batch.dense[..., -1]) * found.blueprint.features.elapsed.typical
        torch.testing.assert_close(gaps, torch.tensor([0.0, 1.0, 3.0, 5.0, 7.0, 9.0]).expand_as(gaps))
