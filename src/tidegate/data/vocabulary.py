"""Units of text and their numbers: characters and words. Subwords have a file of their own."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

END, UNKNOWN = 0, 1
"""The tokens every vocabulary begins with: where a document ends, and what was not seen in training."""

_WORD = re.compile(r"\n|\d+(?:[.,:]\d+)+|\w+(?:['’\-]\w+)*|[^\w\s]")
_OPENING, _CLOSING = frozenset("([{«“„"), frozenset(".,;:!?%)]}»”’")


class Vocabulary(BaseModel, ABC):
    """Text as numbers and back. Fitted on the training part only, and saved as JSON with the model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def size(self) -> int:
        """How many tokens there are, `END` and `UNKNOWN` among them."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Return the tokens of a text, int64 [T]."""

    @abstractmethod
    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens; `END` is left out."""

    @abstractmethod
    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Return each token as a person would read it."""


class Characters(Vocabulary):
    """Every character is a token; decoding is exact but for characters that training did not see."""

    unit: Literal["character"] = "character"
    entries: str

    @classmethod
    def fit(cls, texts: Iterable[str], size: int | None = None) -> Self:
        """Keep the characters that occur, the most frequent of them where there are more than `size` tokens."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        return cls(entries="".join(sorted(_most_frequent(counts, size))))

    @property
    def size(self) -> int:
        return len(self.entries) + 2

    def encode(self, text: str) -> np.ndarray:
        points = _code_points(text)
        at = np.searchsorted(self._points, points).clip(max=max(len(self._points) - 1, 0))
        if not len(self._points):
            return np.full(len(points), UNKNOWN)
        return np.where(self._points[at] == points, at + 2, UNKNOWN)

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.pieces(token for token in tokens if token != END))

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [("", "\ufffd")[token] if token < 2 else self.entries[token - 2] for token in tokens]

    @cached_property
    def _points(self) -> np.ndarray:
        return _code_points(self.entries)


class Words(Vocabulary):
    """Words, punctuation marks and ends of line are tokens; decoding puts single spaces where they belong."""

    unit: Literal["word"] = "word"
    entries: tuple[str, ...]

    @classmethod
    def fit(cls, texts: Iterable[str], size: int | None = None) -> Self:
        """Keep the words that occur, the most frequent of them where there are more than `size` tokens."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_WORD.findall(text))
        return cls(entries=tuple(_most_frequent(counts, size)))

    @property
    def size(self) -> int:
        return len(self.entries) + 2

    def encode(self, text: str) -> np.ndarray:
        numbers = self._numbers
        return np.array([numbers.get(word, UNKNOWN) for word in _WORD.findall(text)], np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        out: list[str] = []
        joined, quoted = True, False
        for piece in self.pieces(token for token in tokens if token != END):
            quote = piece == '"'
            if not (joined or piece in _CLOSING or piece == "\n" or (quote and quoted)):
                out.append(" ")
            joined = piece in _OPENING or piece == "\n" or (quote and not quoted)
            quoted ^= quote
            out.append(piece)
        return "".join(out)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [("<end>", "<unk>")[token] if token < 2 else self.entries[token - 2] for token in tokens]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.entries, 2)}


def _most_frequent(counts: Counter[str], size: int | None) -> list[str]:
    """Return what occurs, most frequent first, ties in order of their text, `size` tokens in all."""
    ordered = sorted(counts, key=lambda entry: (-counts[entry], entry))
    return ordered if size is None else ordered[: max(size - 2, 0)]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32).astype(np.int64)
