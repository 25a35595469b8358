"""A text as a row of tokens, in memory or, beyond a limit, in a temporary file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from tidegate.data.grouping import InMemory, Storage
from tidegate.data.spool import Folder, OnDisk
from tidegate.data.text import Corpus
from tidegate.data.vocabulary import END, UNKNOWN, Vocabulary
from tidegate.errors import DataError

MEMORY_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class TokenRow:
    """`count` tokens: each of the `documents` after an `END`; the `characters` they are; how many are `unknown`."""

    storage: Storage
    count: int
    characters: int
    documents: int
    unknown: int = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return tokens `start` to before `stop`, int64."""
        return self.storage.read(start, stop).astype(np.int64)


def encode_corpus(corpus: Corpus, vocabulary: Vocabulary, limit_bytes: int = MEMORY_LIMIT_BYTES) -> TokenRow:
    """Return the tokens of all documents; in memory while they take less than `limit_bytes`, else on the disk.

    Raises `DataError` where there is no text, or no room for it.
    """
    dtype = np.dtype(np.uint16 if vocabulary.size <= 1 << 16 else np.int32)
    held: list[np.ndarray] = []
    folder, file = None, None
    count = characters = documents = unknown = 0
    try:
        for tokens, read in _pieces(corpus, vocabulary, dtype):
            count, characters = count + len(tokens), characters + read
            unknown, documents = unknown + int((tokens == UNKNOWN).sum()), documents + int((tokens == END).sum())
            held.append(tokens)
            if count * dtype.itemsize > limit_bytes:
                if folder is None:
                    folder = Folder()
                    file = (folder.path / "tokens").open("wb")
                _write(file, held)
        if file is not None:
            _write(file, held)
            file.close()
    except OSError as error:
        raise DataError(
            f"keeping the tokens of {corpus.name} in a temporary file", expected="room for them",
            got=error.strerror or str(error), hint="set TMPDIR to a larger disk",
        ) from error  # fmt: skip
    if not characters:
        raise DataError(
            f"reading {corpus.name}", expected="a character at least", got="none", hint="give a longer text"
        )
    if folder is None:
        return TokenRow(InMemory(np.concatenate(held)), count, characters, documents, unknown)
    return TokenRow(
        OnDisk(folder, folder.open(folder.path / "tokens"), dtype, ()), count, characters, documents, unknown
    )


def _pieces(corpus: Corpus, vocabulary: Vocabulary, dtype: np.dtype) -> Iterator[tuple[np.ndarray, int]]:
    begins = True
    for piece in corpus.pieces():
        tokens = vocabulary.encode(piece.text).astype(dtype)
        yield np.concatenate([np.array([END], dtype), tokens]) if begins else tokens, len(piece.text)
        begins = piece.ends


def _write(file: BinaryIO | None, held: list[np.ndarray]) -> None:
    assert file is not None
    for tokens in held:
        file.write(tokens.tobytes())
    held.clear()
