"""Texts: documents of a file, of a list or of a column, read again and again in pieces of bounded size."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import polars as pl

from tidegate.data.source import SUFFIXES, Source, open_source
from tidegate.errors import DataError

_PIECE_CHARACTERS = 1 << 20
_READERS = "a .txt file (one document), a table with a column of texts, or a list of texts"


class Piece(NamedTuple):
    """Some text of a document, and whether the document ends with it."""

    text: str
    ends: bool


@dataclass(frozen=True)
class Corpus:
    """Documents in order, which `pieces` reads from the start whenever it is called; `missing` counts what is none."""

    name: str
    pieces: Callable[[], Iterator[Piece]]
    missing: Callable[[], int] = lambda: 0

    @property
    def notes(self) -> list[str]:
        """Say how many texts were missing and left out."""
        count = self.missing()
        return [f"{self.name}: {count} texts are missing and left out"] if count else []

    def sizes(self) -> np.ndarray:
        """Return the characters of each document, [N]."""
        sizes, now = [], 0
        for piece in self.pieces():
            now += len(piece.text)
            if piece.ends:
                sizes.append(now)
                now = 0
        return np.array(sizes, np.int64)

    def texts(self) -> Iterator[str]:
        """Yield the text of every piece."""
        return (piece.text for piece in self.pieces())

    def only(self, chosen: np.ndarray) -> Corpus:
        """Return the documents whose numbers are in `chosen`, in their own order."""
        wanted = set(chosen.tolist())

        def pieces() -> Iterator[Piece]:
            number = 0
            for piece in self.pieces():
                if number in wanted:
                    yield piece
                number += piece.ends

        return Corpus(self.name, pieces)

    def between(self, start: int, stop: int | None = None) -> Corpus:
        """Return the characters from `start` to before `stop` of all documents together; what is cut off has no end."""

        def pieces() -> Iterator[Piece]:
            at = 0
            for text, ends in self.pieces():
                low, high = max(start - at, 0), len(text) if stop is None else min(stop - at, len(text))
                if low < high:
                    yield Piece(text[low:high], ends and high == len(text))
                at += len(text)

        return Corpus(self.name, pieces)


def open_corpus(data: Any, column: str | None = None) -> Corpus:
    """Return the documents of a text file, of `column` of a table, or of a list of texts; missing ones are left out.

    Files are UTF-8, compressed where they end in .gz; every end of line is read as a newline. Raises `DataError`
    naming file, row or place for what cannot be read as text.
    """
    if isinstance(data, Corpus):
        return data
    if isinstance(data, str | os.PathLike) and not str(data).lower().endswith(SUFFIXES):
        path = Path(data)
        _refuse_no_file(path)
        return Corpus(path.name, lambda: _file_pieces(path))
    if (listed := as_list(data)) is not None:
        missing = [_is_missing(text) for text in listed]
        checked = check_texts(["" if no else text for no, text in zip(missing, listed, strict=True)], "reading texts")
        texts = [text for no, text in zip(missing, checked, strict=True) if not no]
        return Corpus("texts", lambda: (Piece(text, True) for text in texts), lambda: sum(missing))
    source = open_columns(data, column)
    name = text_column(source, column)
    return Corpus(
        source.name,
        lambda: _column_pieces(source, name),
        lambda: sum(frame[name].null_count() for frame in source.chunks([name])),
    )


def as_list(data: Any) -> list[Any] | None:
    """Return a list, a tuple, an array or a series as a list, and None for anything else."""
    if isinstance(data, list | tuple):
        return list(data)
    listed: Callable[[], list[Any]] | None = getattr(data, "tolist", None) or getattr(data, "to_list", None)
    return listed() if listed is not None and np.ndim(data) == 1 else None


def check_texts(texts: Sequence[Any], doing: str) -> list[str]:
    """Return a list of texts, or raise `DataError` naming the first entry that is none."""
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"{doing}, entry {number}", expected="a text", got=f"{type(text).__name__}: {text!r}"[:80],
                hint="a list of str",
            )  # fmt: skip
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(
                f"{doing}, entry {number}", expected="characters that UTF-8 can hold",
                got=f"half of a surrogate pair in {text!r}"[:80], hint='text.encode("utf-8", "replace").decode()',
            )  # fmt: skip
    return [str(text) for text in texts]


def read_lines(data: Any) -> list[str]:
    """Return the lines of a text file, or the texts of a list or series, missing ones (None, NaN) as ""."""
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        _refuse_no_file(path)
        lines = "".join(piece.text for piece in _file_pieces(path)).split("\n")
        return lines if lines[-1] else lines[:-1]
    if (listed := as_list(data)) is None:
        raise DataError(
            "reading texts", expected="a text file or a list of texts", got=type(data).__name__, hint="a list of str"
        )
    return check_texts(["" if _is_missing(text) else text for text in listed], "reading texts")


def _is_missing(text: Any) -> bool:
    """Whether an entry stands for no text: None, NaN, NA of pandas."""
    return text is None or type(text).__name__ == "NAType" or (isinstance(text, float) and text != text)


def open_columns(data: Any, *columns: str | None, must_have: bool = True) -> Source:
    """Open a table whose `columns`, those that are named, hold texts, whatever they look like."""
    source = open_source(data, must_have=must_have)
    odd = [name for name in columns if name in source.columns and source.columns[name] != pl.String]
    return open_source(data, kinds=dict.fromkeys(odd, "text"), must_have=must_have) if odd else source


def text_column(source: Source, column: str | None, besides: str | None = None) -> str:
    """Return the column of texts that is meant: the one named, or else the only one there is `besides` another."""
    found = [name for name, dtype in source.columns.items() if dtype == pl.String and name != besides]
    if column is None and len(found) == 1:
        return found[0]
    if column not in source.columns:
        raise DataError(
            f"reading texts of {source.name}", expected="the name of a column of texts",
            got=f"{column!r}" if column else f"none, and columns {list(source.columns)}",
            hint=f"one of {found or list(source.columns)}",
        )  # fmt: skip
    return str(column)


def column_texts(source: Source, column: str) -> pl.Series:
    """Return a column as texts, missing ones as null."""
    return pl.concat([frame[column] for frame in source.chunks([column])]).cast(pl.String)


def _column_pieces(source: Source, column: str) -> Iterator[Piece]:
    for frame in source.chunks([column]):
        yield from (Piece(text, True) for text in frame[column].cast(pl.String) if text is not None)


def _refuse_no_file(path: Path) -> None:
    if not os.path.isfile(path):
        got = "a folder" if os.path.isdir(path) else "nothing there"
        raise DataError(
            f"reading {str(path)[:80]!r}", expected=_READERS, got=got, hint="check the path; [text] for a text itself"
        )


def _file_pieces(path: Path) -> Iterator[Piece]:
    """Read a file piece by piece, cut after a line where there is one in the piece, or else after a space."""
    try:
        with _opened(path) as file:
            rest = ""
            while read := file.read(_PIECE_CHARACTERS):
                text = rest + read
                whole = len(text) if len(text) > 2 * _PIECE_CHARACTERS else 0
                cut = text.rfind("\n") + 1 or text.rfind(" ") + 1 or whole
                rest = text[cut:]
                if cut:
                    yield Piece(text[:cut], False)
            yield Piece(rest, True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"reading {path.name}", expected="UTF-8 text",
            got=f"the byte 0x{error.object[error.start]:02x}: {error.reason}",
            hint="convert it: iconv -f latin1 -t utf-8",
        ) from None  # fmt: skip
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"reading {path.name}", expected="a readable file", got=str(error), hint="check the file"
        ) from None


def _opened(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")
