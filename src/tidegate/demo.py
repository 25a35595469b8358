"""`make demo`: train on two small real data sets and show where the results are.

Digits: scikit-learn's handwritten digits (UCI, Alpaydin & Kaynak 1998), each image a sequence of 8 rows of 8 values.
Lynx: lynx trapped a year in the Mackenzie River district, 1821-1934 (Elton & Nicholson 1942; the series of Campbell &
Walker 1977, as Brockwell & Davis 1991 print it, series G), a cycle of about ten years.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from tidegate.config import make_config
from tidegate.run import CONFIG, REPORT, Trained, run, start_run
from tidegate.train.progress import progress

FOLDER = Path("demo-output")

# fmt: off
LYNX = (
    269, 321, 585, 871, 1475, 2821, 3928, 5943, 4950, 2577, 523, 98, 184, 279, 409, 2285, 2685, 3409, 1824, 409,
    151, 45, 68, 213, 546, 1033, 2129, 2536, 957, 361, 377, 225, 360, 731, 1638, 2725, 2871, 2119, 684, 299,
    236, 245, 552, 1623, 3311, 6721, 4254, 687, 255, 473, 358, 784, 1594, 1676, 2251, 1426, 756, 299, 201, 229,
    469, 736, 2042, 2811, 4431, 2511, 389, 73, 39, 49, 59, 188, 377, 1292, 4031, 3495, 587, 105, 153, 387,
    758, 1307, 3465, 6991, 6313, 3794, 1836, 345, 382, 808, 1388, 2713, 3800, 3091, 2985, 3790, 674, 81, 80, 108,
    229, 399, 1132, 2432, 3574, 2935, 1537, 529, 485, 662, 1000, 1590, 2657, 3396,
)
# fmt: on


def digits_frames(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return (train, test) long tables of the digits: a row per image row, split 80/20 by class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=seed)
    return _long(images, labels, parts[0]), _long(images, labels, parts[1])


def _long(images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> pl.DataFrame:
    steps = images[chosen].reshape(-1, 8)
    return pl.DataFrame(
        {
            "image": np.repeat(chosen, 8),
            "row": np.tile(np.arange(8), len(chosen)),
            **{f"pixel_{i}": steps[:, i] for i in range(8)},
            "digit": np.repeat(labels[chosen], 8),
        }
    )


def lynx_frame() -> pl.DataFrame:
    """Return the lynx series, a row a year."""
    return pl.DataFrame({"year": np.arange(1821, 1821 + len(LYNX)), "lynx": LYNX})


def main() -> None:
    """Train a classifier and a forecaster; print test figures and where the reports are."""
    FOLDER.mkdir(exist_ok=True)
    train, test = digits_frames()
    train.write_csv(FOLDER / "digits_train.csv")
    test.write_csv(FOLDER / "digits_test.csv")
    series = lynx_frame()
    series.head(-10).write_csv(FOLDER / "lynx_train.csv")
    series.write_csv(FOLDER / "lynx.csv")

    print("1/2  Digits: which digit is drawn by these 8 rows of pixels?")
    digits = _train("digits", {"target": ("digit",), "id": "image", "time": "row", "epochs": 25})
    figures = digits.model.evaluate(FOLDER / "digits_test.csv")
    print(f"     test accuracy {figures['accuracy']:.3f} on {test['image'].n_unique()} images held out")

    print("2/2  Lynx: how many are trapped in each of the next 10 years?")
    lynx = _train("lynx", {"target": ("lynx",), "time": "year", "horizon": 10, "lookback": 20, "loss": "mae"})
    last = lynx.model.evaluate(FOLDER / "lynx.csv", start=1925)
    average = float(np.mean(LYNX))
    print(f"     mean absolute error {last['mae']:.0f} on the 10 years held out (the series averages {average:.0f})")
    for name in ("digits", "lynx"):
        print(f"     report: {FOLDER / name / REPORT}")


def _train(name: str, options: dict[str, object]) -> Trained:
    folder = FOLDER / name
    if (folder / CONFIG).exists():
        shutil.rmtree(folder)
    start_run(folder, str(FOLDER / f"{name}_train.csv"), None, make_config(options))
    done = run(folder, resume=False, observers=progress(False))
    if not isinstance(done, Trained):
        raise RuntimeError(f"{folder} was finished before it began")
    return done


if __name__ == "__main__":
    main()
