"""Spans of long sequences: every step once an epoch, in order, whatever the lengths (B5)."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data.features import Encoded, fit_features
from tidegate.data.loader import Sequences
from tidegate.data.source import open_source
from tidegate.data.spans import Spans
from tidegate.data.table import load_table


def sequences(lengths: list[int]) -> Sequences:
    """Return sequences whose values are numbers of their own, and so are their targets."""
    frame = pl.DataFrame({"id": np.repeat(np.arange(len(lengths)), lengths), "x": np.arange(sum(lengths)) * 1.0})
    table = load_table(open_source(frame), id="id")
    features = fit_features(table, ("x",), [(0, table.rows)])
    return Sequences(Encoded(table, features), np.arange(len(lengths)), step_targets=lambda index, mask: index * mask)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2))
def test_every_step_comes_once_after_the_one_before_it(lengths: list[int], window: int, rows: int, epoch: int) -> None:
    spans = Spans(sequences(lengths), rows, window, seed=3)
    seen: dict[int, list[int]] = {}
    batches = list(spans.batches(epoch))
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, batch in enumerate(batches):
        if batch.begins:
            reading = batch.rows.tolist()
        assert batch.rows.tolist() == reading, "a span that does not begin has the rows of the one before it"
        assert batch.dense.shape[1] == batch.target.shape[1] <= window, number
        sizes.setdefault(tuple(reading), []).append(batch.dense.shape[1])
        for row, length, target in zip(reading, batch.lengths.tolist(), batch.target, strict=True):
            seen.setdefault(row, []).extend(target[:length].tolist())
    starts = np.cumsum([0, *lengths])
    assert seen == {row: list(range(starts[row], starts[row + 1])) for row in range(len(lengths))}
    assert len(batches) == spans.steps
    assert all(max(each) - min(each) < len(each) for each in sizes.values()), "the steps are shared out evenly"


@pytest.mark.parametrize("start", range(7))
def test_an_epoch_can_be_taken_up_at_any_span(start: int) -> None:
    spans = Spans(sequences([5, 2, 9, 4, 1]), 2, 3, seed=1)
    whole, rest = list(spans.batches(4)), list(spans.batches(4, start))
    assert len(rest) == len(whole) - start
    for a, b in zip(whole[start:], rest, strict=True):
        assert (a.begins, a.rows.tolist(), a.lengths.tolist()) == (b.begins, b.rows.tolist(), b.lengths.tolist())
        assert torch.equal(a.dense, b.dense)


def test_epochs_differ_and_evaluation_keeps_the_order() -> None:
    spans = Spans(sequences([3] * 20), 2, 2, seed=0)
    orders = [[batch.rows[0].item() for batch in spans.batches(epoch)] for epoch in (0, 1)]
    assert orders[0] != orders[1]
    plain = Spans(sequences([3] * 20), 2, 2)
    assert [batch.rows[0].item() for batch in plain.batches(5)] == [n for n in range(0, 20, 2) for _ in range(2)]
