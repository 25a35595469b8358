"""The arithmetic over rows."""

from __future__ import annotations

import math

import pytest

from tidegate.bench.grid import Size
from tidegate.bench.rows import Row, geometric_mean, summarise

SIZE = Size(2, 3)


def row(cell: str, mode: str = "train", **times: float) -> Row:
    return Row(cell, SIZE, mode, {name.replace("_", " "): time for name, time in times.items()})


def test_a_row_is_held_against_its_best_peer() -> None:
    measured = row("lstm", tidegate=2.0, tidegate_llvm=1.0, torch_loop=8.0, jax_scan=3.0)
    assert measured.peers == {"torch loop": 8.0, "jax scan": 3.0}
    assert measured.ratios == {"torch loop": 4.0, "jax scan": 1.5}
    assert measured.ratio == 1.5


def test_the_geometric_mean_of_ratios_that_cancel_is_one() -> None:
    assert geometric_mean([4.0, 0.25, 1.0]) == pytest.approx(1.0)
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_a_summary_counts_every_row() -> None:
    rows = [
        row("lstm", tidegate=1.0, torch_loop=8.0, jax_scan=16.0),
        row("lstm", "forward", tidegate=1.0, torch_loop=2.0),
        row("gru", tidegate=4.0, torch_loop=2.0),
        Row("gru", SIZE, "forward", wrong=("torch loop: outputs differ",)),
    ]
    summary = summarise(rows)
    assert summary.rows == 4
    assert summary.geometric_mean == pytest.approx(math.prod([8.0, 2.0, 0.5]) ** (1 / 3))
    assert summary.by_cell == pytest.approx({"lstm": 4.0, "gru": 0.5})
    assert summary.by_peer == pytest.approx({"torch loop": 2.0, "jax scan": 16.0})
    assert summary.worst is rows[2]
    assert summary.failed == (rows[3],)


def test_rows_that_all_failed_have_no_mean() -> None:
    summary = summarise([Row("gru", SIZE, "train", wrong=("differs",))])
    assert (summary.geometric_mean, summary.worst, summary.by_cell) == (None, None, {})
    assert len(summary.failed) == 1


def test_json_holds_every_candidate() -> None:
    held = row("lstm", tidegate=1.0, torch_loop=8.0).as_json()
    assert held["milliseconds"] == {"tidegate": 1.0, "torch loop": 8.0}
    assert (held["batch"], held["hidden"], held["steps"], held["ratio_to_best_peer"]) == (2, 3, 100, 8.0)
