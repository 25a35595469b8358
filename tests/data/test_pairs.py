"""Pairs of texts from lists, parallel files and tables (D6)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidegate.data.batch import IGNORED
from tidegate.data.loader import Loader
from tidegate.data.pairs import PairMaker, open_pairs, open_sources
from tidegate.data.vocabulary import END, Words
from tidegate.errors import DataError

SOURCES, TARGETS = ["ein Hund", "eine Katze", " ", "zwei Katzen"], ["a dog", "a cat", "nothing", "two cats"]


def test_lists_files_and_tables_give_the_same_pairs(tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("\n".join(SOURCES))
    (tmp_path / "a.en").write_text("\n".join(TARGETS) + "\n")
    pl.DataFrame({"de": SOURCES, "n": [1, 2, 3, 4], "en": TARGETS}).write_csv(tmp_path / "a.csv")
    read = [
        open_pairs(SOURCES, TARGETS),
        open_pairs(tmp_path / "a.de", tmp_path / "a.en"),
        open_pairs(tmp_path / "a.csv", "en"),
        open_pairs(pl.DataFrame({"de": SOURCES, "more": TARGETS, "en": TARGETS}), "en", "de"),
    ]
    for pairs in read:
        assert pairs.sources == ["ein Hund", "eine Katze", "zwei Katzen"]
        assert pairs.targets == ["a dog", "a cat", "two cats"]
        assert pairs.left_out == 1
    assert read[2].columns == ("de", "en")
    assert open_sources(tmp_path / "a.csv", "de") == ["ein Hund", "eine Katze", "", "zwei Katzen"]


def test_batches_hold_tokens_ends_and_padding() -> None:
    pairs = open_pairs(SOURCES, TARGETS)
    maker = PairMaker(pairs, Words.fit(pairs.sources), Words.fit(pairs.targets))
    (batch,) = Loader(maker, 8).batches()
    assert batch.source.shape == (3, 2)
    assert batch.target.shape == (3, 3)
    assert (batch.target[:, -1] == END).all()
    short = maker.make(np.array([0]))
    assert short.lengths.tolist() == [3]
    uneven = PairMaker(open_pairs(["a", "b c"], ["x y z", "u"]), Words.fit(["a b c"]), Words.fit(["x y z u"]))
    batch = uneven.make(np.array([0, 1]))
    assert batch.source_lengths.tolist() == [1, 2]
    assert batch.lengths.tolist() == [4, 2]
    assert batch.target[1, 2:].tolist() == [IGNORED, IGNORED]


def test_what_does_not_pair_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected as many targets as sources, 2; got 1"):
        open_pairs(["a", "b"], ["x"])
    with pytest.raises(DataError, match="expected at least one pair; got none"):
        open_pairs(["a"], [" "])
    with pytest.raises(DataError, match="expected the targets too; got sources alone"):
        open_pairs(["a"], None)
    pl.DataFrame({"de": SOURCES, "n": [1, 2, 3, 4]}).write_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match="expected the name of a column of texts; got 'en'"):
        open_pairs(tmp_path / "a.csv", "en")
