"""Real data, official splits, means over seeds: one table. Nothing is tuned on a test part.

`python benchmarks/real_data.py [--seeds 5] [NAME …]` with names of the table's first column.
"""

from __future__ import annotations

import argparse
import gzip
import io
import time
from collections.abc import Callable

import numpy as np
import polars as pl
from _archives import DATA, archive
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tidegate as tg

Row = dict[str, float]


def classified(name: str) -> Callable[[int], Row]:
    def run(seed: int) -> Row:
        X, y = archive(name, "TRAIN")
        X_test, y_test = archive(name, "TEST")
        model = tg.Classifier(
            hidden_size=128,
            bidirectional=True,
            dropout=0.3,
            epochs=100,
            batch_size=16,
            seed=seed,
            patience=30,
        )
        return {"accuracy": model.fit(X, y).score(X_test, y_test)}

    return run


def digits(seed: int) -> Row:
    X, y = load_digits(return_X_y=True)
    parts = train_test_split(X.reshape(-1, 8, 8), y, test_size=0.2, stratify=y, random_state=seed)
    model = tg.Classifier(hidden_size=128, dropout=0.3, seed=seed).fit(parts[0], parts[2])
    return {"accuracy": model.score(parts[1], parts[3])}


def _csv(path: str) -> pl.DataFrame:
    with gzip.open(DATA / path) as file:
        return pl.read_csv(io.BytesIO(file.read()), null_values="NA", infer_schema_length=None)


def etth1(seed: int) -> Row:
    frame = _csv("ett/ETTh1.csv.gz").with_columns(pl.col("date").str.to_datetime())
    train, valid, test = frame[:8640], frame[8640 - 96 : 11520], frame[11520 - 336 : 14400]
    model = tg.fit(
        train,
        [c for c in frame.columns if c != "date"],
        time="date",
        valid=valid,
        horizon=24,
        lookback=96,
        batch_size=64,
        epochs=6,
        patience=2,
        lr=1e-3,
        quantiles=(),
        seed=seed,
        quiet=True,
    )
    figures = model.evaluate(test, start=frame["date"][11520])
    return {"MSE": figures["scaled_mse"], "MAE": figures["scaled_mae"]}


def beijing(seed: int) -> Row:
    frame = (
        _csv("beijing_pm25/pollution.csv.gz")
        .with_columns(time=pl.datetime("year", "month", "day", "hour"))
        .drop("No", "year", "month", "day", "hour")
    )
    cut = int(len(frame) * 0.8)
    model = tg.fit(
        frame[:cut],
        "pm2.5",
        time="time",
        horizon=24,
        lookback=72,
        loss="mae",
        batch_size=128,
        epochs=10,
        patience=3,
        lr=1e-3,
        seed=seed,
        quiet=True,
    )
    figures = model.evaluate(frame[cut - 72 :], start=frame["time"][cut])
    y = frame["pm2.5"].cast(pl.Float64).to_numpy()
    origins = np.arange(cut, len(y) - 23)
    ahead = origins[:, None] + np.arange(24)
    last = pl.Series(y).fill_nan(None).forward_fill().to_numpy()
    return {
        "MAE": figures["mae"],
        "persistence": float(np.nanmean(np.abs(y[ahead] - last[origins - 1][:, None]))),
        "yesterday": float(np.nanmean(np.abs(y[ahead] - last[ahead - 24]))),
    }


def airline(seed: int) -> Row:
    frame = pl.read_csv(DATA / "univariate_small/airline-passengers.csv")
    time_name, target = frame.columns
    frame = frame.with_columns(pl.col(time_name).str.to_date("%Y-%m"))
    train, truth = frame[:-24], frame[target][-24:].to_numpy()
    model = tg.fit(
        train, target, time=time_name, horizon=24, lookback=36, seed=seed, quiet=True, epochs=200, patience=40
    )
    guess = model.predict(train)[target].to_numpy()
    naive = np.tile(train[target][-12:].to_numpy(), 2)
    return {"MAE": float(np.abs(guess - truth).mean()), "seasonal_naive": float(np.abs(naive - truth).mean())}


JOBS: dict[str, tuple[str, Callable[[int], Row]]] = {
    "JapaneseVowels": ("accuracy >= 0.96", classified("JapaneseVowels")),
    "ItalyPowerDemand": ("accuracy >= 0.95", classified("ItalyPowerDemand")),
    "BasicMotions": ("accuracy >= 0.95", classified("BasicMotions")),
    "digits": ("accuracy >= 0.97", digits),
    "ETTh1": ("MSE <= 0.37", etth1),
    "Beijing PM2.5": ("MAE <= 0.9 x both", beijing),
    "airline": ("MAE < seasonal_naive", airline),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(JOBS))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print(f"{'data':18s} {'aim':22s} {'seconds':>8s}  mean over {options.seeds} seeds (worst .. best by first figure)")
    for name in options.names:
        aim, job = JOBS[name]
        start = time.perf_counter()
        rows = [job(seed) for seed in range(options.seeds)]
        first = [next(iter(row.values())) for row in rows]
        means = "  ".join(f"{k} {np.mean([row[k] for row in rows]):.4f}" for k in rows[0])
        seconds = (time.perf_counter() - start) / options.seeds
        print(
            f"{name:18s} {aim:22s} {seconds:8.1f}  {means}  ({min(first):.4f} .. {max(first):.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
