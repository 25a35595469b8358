"""Texts are read piece by piece, whole, from files, lists and columns (C5)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas
import polars as pl
import pytest

import tidegate.data.text as text
from tidegate.data.text import open_corpus, read_lines
from tidegate.errors import DataError


def whole(corpus: text.Corpus) -> str:
    return "".join(corpus.texts())


@pytest.mark.parametrize("characters", [1, 3, 7, 1000])
def test_a_file_in_pieces_is_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, characters: int) -> None:
    monkeypatch.setattr(text, "_PIECE_CHARACTERS", characters)
    written = "One line, é 🎉\n\nAnother one without\nan end"
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + written.replace("\n", "\r\n").encode())
    with gzip.open(tmp_path / "a.txt.gz", "wb") as file:
        file.write(written.encode())
    for name in ("a.txt", "a.txt.gz"):
        corpus = open_corpus(tmp_path / name)
        assert whole(corpus) == whole(corpus) == written
        assert corpus.sizes().tolist() == [len(written)]
        assert [piece.ends for piece in corpus.pieces()][-1]


def test_pieces_end_between_lines_or_else_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_PIECE_CHARACTERS", 8)
    (tmp_path / "a.txt").write_text("one two\nthree four five six\nseven")
    pieces = [piece.text for piece in open_corpus(tmp_path / "a.txt").pieces()]
    assert all(piece.endswith(("\n", " ")) for piece in pieces[:-1])


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 4), (3, None), (2, 7), (5, 5), (6, 100)])
def test_between_is_a_slice_of_all_documents(start: int, stop: int | None) -> None:
    corpus = open_corpus(["abc", "", "defg"])
    part = corpus.between(start, stop)
    assert whole(part) == "abcdefg"[start:stop]


def test_a_cut_document_has_no_end() -> None:
    pieces = list(open_corpus(["abc", "defg"]).between(1, 5).pieces())
    assert pieces == [("bc", True), ("de", False)]


def test_only_takes_documents_by_number() -> None:
    assert list(open_corpus(["a", "b", "c"]).only(np.array([2, 0])).texts()) == ["a", "c"]


def test_a_column_of_a_table_leaves_missing_texts_out(tmp_path: Path) -> None:
    pl.DataFrame({"n": [1, 2, 3], "said": ["x", None, "007"]}).write_csv(tmp_path / "t.csv")
    assert list(open_corpus(tmp_path / "t.csv", "said").texts()) == ["x", "007"]


def test_series_and_arrays_are_lists() -> None:
    for texts in (["a", "b"], ("a", "b"), np.array(["a", "b"]), pl.Series(["a", "b"]), pandas.Series(["a", "b"])):
        assert list(open_corpus(texts).texts()) == ["a", "b"]
        assert read_lines(texts) == ["a", "b"]


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reading texts, entry 1; expected a text; got int: 3"):
        open_corpus(["a", 3])
    with pytest.raises(DataError, match=r"reading 'Once upon'; expected a \.txt file.* got nothing there"):
        open_corpus("Once upon")
    with pytest.raises(DataError, match="got nothing there"):
        open_corpus("word " * 1000)
    (tmp_path / "bad.txt").write_bytes(b"abc \xe9t\xe9")
    with pytest.raises(DataError, match=r"reading bad\.txt; expected UTF-8 text; got the byte 0xe9"):
        whole(open_corpus(tmp_path / "bad.txt"))
    (tmp_path / "torn.txt.gz").write_bytes(gzip.compress(b"abc" * 1000)[:20])
    with pytest.raises(DataError, match=r"reading torn\.txt\.gz; expected a readable file"):
        whole(open_corpus(tmp_path / "torn.txt.gz"))
    pl.DataFrame({"a": ["x"], "b": ["y"]}).write_csv(tmp_path / "two.csv")
    with pytest.raises(DataError, match=r"expected the name of a column of texts; got none, and columns \['a', 'b'\]"):
        open_corpus(tmp_path / "two.csv")


def test_lines_of_a_file_end_at_newlines_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\u2028more\n\nthr\x0cee\x85\n")
    assert read_lines(tmp_path / "a.txt") == ["one\u2028more", "", "thr\x0cee\x85"]


def test_a_damaged_archive_and_halves_of_characters_are_told(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"abc def " * 1000))
    packed[15:20] = b"\xff" * 5
    (tmp_path / "bad.txt.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"reading bad\.txt\.gz; expected a readable file"):
        whole(open_corpus(tmp_path / "bad.txt.gz"))
    with pytest.raises(DataError, match="entry 0; expected characters that UTF-8 can hold"):
        open_corpus(["a\ud800"])
    with pytest.raises(DataError, match="expected a text file or a list of texts; got int"):
        read_lines(3)
