"""B7 on real data: trained in half precision, a model is as accurate, within 1 %, as one trained in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tidegate as tg

SEEDS = range(3)
Parts = tuple[Any, Any, Any, Any]


def accuracy(parts: Parts, precision: str, epochs: int) -> float:
    """Return the mean test accuracy over seeds, everything but `epochs` as it is by default."""
    X, y, X_test, y_test = parts
    fitted = [tg.Classifier(epochs=epochs, seed=seed, device="cpu", precision=precision).fit(X, y) for seed in SEEDS]
    return float(np.mean([model.score(X_test, y_test) for model in fitted]))


def check(parts: Parts, epochs: int) -> None:
    found = {precision: accuracy(parts, precision, epochs) for precision in ("float32", "bf16", "fp16")}
    assert found["float32"] > 0.93, found
    assert min(found.values()) > found["float32"] - 0.01, found


@pytest.mark.slow
def test_digits() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X.reshape(-1, 8, 8), y, test_size=0.2, stratify=y, random_state=0)
    check((X, y, X_test, y_test), 15)


@pytest.mark.slow
@pytest.mark.data
def test_japanese_vowels(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    from _archives import read_ts

    folder = shared_data / "ucr_uea" / "JapaneseVowels"
    train, test = (read_ts(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    check((*train, *test), 30)
