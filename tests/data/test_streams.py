"""Windows of parallel streams: every token is predicted once, in order, the same when resumed (B5, D5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tidegate.data.batch import IGNORED
from tidegate.data.grouping import InMemory
from tidegate.data.streams import Streams
from tidegate.data.text import open_corpus
from tidegate.data.tokens import TokenRow, encode_corpus
from tidegate.data.vocabulary import END, Characters
from tidegate.errors import DataError


def row(count: int) -> TokenRow:
    return TokenRow(InMemory(np.arange(count)), count, count - 1, 1)


@given(
    count=st.integers(2, 400), rows=st.integers(1, 9), window=st.integers(1, 50), seed=st.none() | st.integers(0, 99),
    epoch=st.integers(0, 3),
)  # fmt: skip
def test_every_token_is_predicted_once_from_the_one_before(
    count: int, rows: int, window: int, seed: int | None, epoch: int
) -> None:
    streams = Streams(row(count), rows, window, seed)
    batches = list(streams.batches(epoch))
    assert len(batches) == streams.steps
    assert [batch.begins for batch in batches] == [True] + [False] * (len(batches) - 1)
    seen = [torch.cat([batch.target[r, : batch.lengths[r]] for batch in batches]) for r in range(streams.rows)]
    assert torch.cat(seen).tolist() == list(range(1, count))
    for batch in batches:
        assert batch.tokens.shape[1] >= 1
        real = batch.target != IGNORED
        assert torch.equal(real.sum(1), batch.lengths)
        assert torch.equal(batch.tokens[real] + 1, batch.target[real])


def test_random_windows_are_those_of_seed_and_epoch_and_go_on_from_any() -> None:
    streams = Streams(row(10_000), 4, 50, seed=3)
    first, again, other = (list(streams.batches(epoch)) for epoch in (0, 0, 1))
    widths = [batch.tokens.shape[1] for batch in first]
    assert widths == [batch.tokens.shape[1] for batch in again]
    assert widths != [batch.tokens.shape[1] for batch in other]
    assert len(set(widths)) > 5
    assert 35 < np.median(widths) < 65
    assert [batch.share for batch in first] == [width / 50 for width in widths]
    resumed = list(streams.batches(0, 7))
    assert torch.equal(resumed[0].tokens, first[7].tokens)
    assert not resumed[0].begins


def test_a_text_of_one_window_takes_whole_steps() -> None:
    (batch,) = Streams(row(40), 4, 128, seed=0).batches()
    assert batch.share == 1


def test_documents_are_told_apart() -> None:
    tokens = encode_corpus(open_corpus(["ab", "", "b"]), Characters(entries="ab"))
    assert tokens.read(0, tokens.count).tolist() == [END, 2, 3, END, END, 3]
    assert encode_corpus(open_corpus(["ax"]), Characters(entries="ab")).unknown == 1


def test_tokens_beyond_the_limit_lie_on_the_disk_and_are_the_same() -> None:
    corpus = open_corpus(["hello world " * 50, "again"])
    vocabulary = Characters.fit(corpus.texts())
    held, kept = encode_corpus(corpus, vocabulary), encode_corpus(corpus, vocabulary, limit_bytes=100)
    assert type(kept.storage) is not type(held.storage)
    assert held.count == kept.count == 600 + 5 + 2
    assert held.characters == kept.characters == 605
    assert np.array_equal(held.read(0, held.count), kept.read(0, held.count))
    assert np.array_equal(held.read(590, 604), kept.read(590, 604))


def test_no_text_is_told() -> None:
    with pytest.raises(DataError, match="reading texts; expected a character at least; got none"):
        encode_corpus(open_corpus(["", ""]), Characters(entries="a"))
