"""Readers of the benchmark archives; the folder comes from TIDEGATE_DATA, or lies beside the checkout."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np

DATA = Path(os.environ.get("TIDEGATE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def read_ts(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return sequences [T_i, D] and labels [N] of a UCR/UEA .ts file; `?` is missing."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    sequences, labels = [], []
    with io.StringIO(text) as file:
        lines = (line.strip() for line in file)
        for line in lines:
            if line.lower() == "@data":
                break
        for line in lines:
            if line:
                *dimensions, label = line.split(":")
                rows = [[float("nan" if v == "?" else v) for v in d.split(",")] for d in dimensions]
                sequences.append(np.array(rows).T)
                labels.append(label)
    return sequences, np.array(labels)


def archive(name: str, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the TRAIN or TEST part of a data set of the archive."""
    plain = DATA / "ucr_uea" / name / f"{name}_{part}.ts"
    return read_ts(plain if plain.exists() else plain.with_suffix(".ts.gz"))
