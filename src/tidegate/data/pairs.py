"""Pairs of texts: sources and their translations, from lists, parallel files or two columns of a table."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tidegate.data.batch import IGNORED
from tidegate.data.source import SUFFIXES
from tidegate.data.text import as_list, column_texts, open_columns, read_lines, text_column
from tidegate.data.vocabulary import END, Vocabulary
from tidegate.errors import DataError


@dataclass(frozen=True)
class Pairs:
    """Sources and targets, one of each in turn; `columns` are what they are called, `left_out` how many lacked one."""

    name: str
    sources: list[str]
    targets: list[str]
    columns: tuple[str, str] = ("source", "target")
    left_out: int = 0

    @property
    def notes(self) -> list[str]:
        """Say how many pairs were left out."""
        return [f"{self.name}: {self.left_out} pairs lack a text and are left out"] if self.left_out else []

    def only(self, chosen: np.ndarray) -> Pairs:
        """Return the pairs whose numbers are in `chosen`, in that order."""
        sources, targets = ([texts[i] for i in chosen] for texts in (self.sources, self.targets))
        return dataclasses.replace(self, sources=sources, targets=targets, left_out=0)


def open_pairs(data: Any, target: Any, source: str | None = None) -> Pairs:
    """Return pairs of texts.

    `data` is a table whose columns `source` (not needed where only one other column holds text) and `target` hold
    them; or else a text file or a list of sources, and `target` a text file or a list of as many targets, line by line.
    Pairs that lack one of the two, or in which one is blank, are left out. Raises `DataError` for what does not pair.
    """
    if isinstance(data, Pairs):
        return data
    if is_lines(data):
        if target is None:
            raise DataError(
                "reading pairs of texts", expected="the targets too", got="sources alone",
                hint="target= a text file of as many lines, or a list",
            )  # fmt: skip
        name = os.path.basename(data) if isinstance(data, str | os.PathLike) else "texts"
        return _paired(name, read_lines(data), read_lines(target), ("source", "target"))
    if target is not None and not isinstance(target, str):
        raise DataError(
            "reading pairs of texts", expected="lists of texts, text files, or a table and the name of its column",
            got=f"a table, and {type(target).__name__} as the targets", hint="the column itself: table[\"text\"]",
        )  # fmt: skip
    table = open_columns(data, source, target)
    column = text_column(table, target)
    names = (text_column(table, source, besides=column), column)
    if names[0] == names[1]:
        raise DataError(
            f"reading pairs of {table.name}", expected="two columns", got=f"{column!r} for both",
            hint="source= the column of the other language",
        )  # fmt: skip
    sources, targets = (column_texts(table, name).fill_null("").to_list() for name in names)
    return _paired(table.name, sources, targets, names)


def open_sources(data: Any, column: str | None = None) -> list[str]:
    """Return texts to translate: the lines of a text file, a list, or a column of a table (missing ones as "")."""
    if is_lines(data):
        return read_lines(data)
    table = open_columns(data, column, must_have=False)
    return column_texts(table, text_column(table, column)).fill_null("").to_list()


def is_lines(data: Any) -> bool:
    """Whether `data` is texts line by line, and no table."""
    if isinstance(data, str | os.PathLike):
        return not str(data).lower().endswith(SUFFIXES)
    return as_list(data) is not None


def _paired(name: str, sources: list[str], targets: list[str], columns: tuple[str, str]) -> Pairs:
    if len(sources) != len(targets):
        raise DataError(
            f"reading pairs of {name}", expected=f"as many targets as sources, {len(sources)}",
            got=f"{len(targets)}", hint="line n of one file translates line n of the other",
        )  # fmt: skip
    whole = [pair for pair in zip(sources, targets, strict=True) if pair[0].strip() and pair[1].strip()]
    if not whole:
        raise DataError(f"reading pairs of {name}", expected="at least one pair", got="none", hint="give more")
    first, second = (list(texts) for texts in zip(*whole, strict=True))
    return Pairs(name, first, second, columns, len(sources) - len(whole))


@dataclass(frozen=True)
class PairBatch:
    """B pairs: source [B, S] with its lengths [B], `target` [B, T] with `IGNORED` in the padding, and its lengths [B].

    Each target's last real token is `END`.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    lengths: Tensor

    def to(self, device: torch.device | str) -> PairBatch:
        """Return the same batch on `device`."""
        return dataclasses.replace(self, **{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


class PairMaker:
    """Makes batches of pairs for a `Loader`, which puts pairs of like length together."""

    def __init__(self, pairs: Pairs, source: Vocabulary, target: Vocabulary) -> None:
        self.pairs = pairs
        self.sources = [source.encode(text) for text in pairs.sources]
        self.targets = [np.append(target.encode(text), END) for text in pairs.targets]
        sizes = [(len(tokens), len(others)) for tokens, others in zip(self.targets, self.sources, strict=True)]
        self.lengths = np.array([target + source for target, source in sizes], np.int64)

    def make(self, chosen: np.ndarray) -> PairBatch:
        source, source_lengths = padded([self.sources[i] for i in chosen], END)
        target, lengths = padded([self.targets[i] for i in chosen], IGNORED)
        return PairBatch(source, source_lengths, target, lengths)


def padded(rows: Sequence[np.ndarray], filling: int) -> tuple[Tensor, Tensor]:
    """Return token rows as one tensor [B, T] and their lengths [B]."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    out = torch.full((len(rows), int(lengths.max()) if len(rows) else 0), filling)
    for at, row in enumerate(rows):
        out[at, : len(row)] = torch.from_numpy(row)
    return out, lengths
