"""Readers of the examples' data, and words or letters as padded numbers."""

import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

PADDING, UNKNOWN = 0, 1


def numbered(
    sequences: Iterable[Sequence[str]], *, most: int | None = None, first: Sequence[str] = ()
) -> dict[str, int]:
    """Number the `most` frequent symbols, after padding, what is unknown, and those of `first`."""
    counts = Counter(symbol for sequence in sequences for symbol in sequence)
    symbols = ["<padding>", "<unknown>", *first, *(symbol for symbol, _ in counts.most_common(most))]
    return {symbol: number for number, symbol in enumerate(symbols)}


def padded(sequences: Sequence[Sequence[str]], numbers: dict[str, int], longest: int = 60) -> tuple[Tensor, Tensor]:
    """Return [B, T] numbers and lengths [B]; of each sequence, the first `longest` symbols."""
    rows = [torch.tensor([numbers.get(symbol, UNKNOWN) for symbol in each[:longest]]) for each in sequences]
    return torch.nn.utils.rnn.pad_sequence(rows, True, PADDING), torch.tensor([len(row) for row in rows])


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scikit-learn's handwritten digits as 8 steps of 8 pixels: training x and y, test x and y."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images.reshape(-1, 8, 8) / 16, dtype=torch.float32)
    train, test = train_test_split(np.arange(len(x)), test_size=0.2, stratify=labels, random_state=0)
    y = torch.tensor(labels)
    return x[train], y[train], x[test], y[test]


def mnist(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return images [N, 28, 28], 0 to 1, and labels [N] of the part "train" or "t10k"."""
    with (
        gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as images,
        gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        return torch.tensor(pixels / np.float32(255)), torch.tensor(
            np.frombuffer(labels.read(), np.uint8, offset=8)
        ).long()


def labelled(file: Path, label: int) -> tuple[list[list[str]], list[str]]:
    """Return the words of each line, in lower case, and its label, which stands in column `label` of two."""
    rows = [line.lower().split("\t") for line in file.read_text().splitlines()]
    return [row[1 - label].split() for row in rows], [row[label] for row in rows]


def text(file: Path) -> str:
    """Return what a gzip file holds."""
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        return opened.read()
