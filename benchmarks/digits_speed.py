"""The digits program (two LSTM(128) layers, dropout 0.5, batch norm) through `tg.Classifier` and as a PyTorch loop.

Same data, same sizes, batch 32, 10 epochs, batch order and evaluation included; measured in turn in one process.
Prints the median of the ratio Tidegate / PyTorch over the rounds.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import tidegate as tg

EPOCHS, BATCH = 10, 32


def data() -> list[np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    X = (images / 16).reshape(-1, 8, 8)
    return train_test_split(X, labels, test_size=0.2, stratify=labels, random_state=0)


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTM(8, 128, batch_first=True), nn.LSTM(128, 128, batch_first=True)
        self.norm1, self.norm2, self.drop = nn.BatchNorm1d(128), nn.BatchNorm1d(128), nn.Dropout(0.5)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(self.first(x)[0])
        x = self.norm1(x.transpose(1, 2)).transpose(1, 2)
        x = self.drop(self.second(x)[0][:, -1])
        return self.head(self.norm2(x))


def by_hand(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    torch.manual_seed(0)
    X_train, y_train = torch.tensor(X, dtype=torch.float32), torch.tensor(y)
    held = torch.arange(0, len(y), 7)
    kept = torch.tensor(np.setdiff1d(np.arange(len(y)), held.numpy()))
    model = ByHand()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(EPOCHS):
        model.train()
        for chosen in kept[torch.randperm(len(kept))].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X_train[chosen]), y_train[chosen]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            for chosen in held.split(BATCH):
                model(X_train[chosen]).argmax(1).eq(y_train[chosen]).float().mean().item()
    with torch.no_grad():
        guess = model(torch.tensor(X_test, dtype=torch.float32)).argmax(1).numpy()
    return float((guess == y_test).mean())


def by_tidegate(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray) -> float:
    model = tg.Classifier(
        cell="lstm",
        hidden_size=128,
        layers=2,
        dropout=0.5,
        norm="batch",
        pooling="last",
        epochs=EPOCHS,
        batch_size=BATCH,
        lr=1e-3,
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        clip_norm=None,
        patience=None,
        valid=1 / 7,
    )
    return model.fit(X, y).score(X_test, y_test)


def main(rounds: int = 7) -> None:
    X, X_test, y, y_test = data()
    programs = {"PyTorch loop": by_hand, "tg.Classifier": by_tidegate}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    accuracy = {name: run(X, y, X_test, y_test) for name, run in programs.items()}
    for _ in range(rounds):
        for name, run in programs.items():
            start = time.perf_counter()
            run(X, y, X_test, y_test)
            seconds[name].append(time.perf_counter() - start)
    for name in programs:
        print(f"{name:14s} median {statistics.median(seconds[name]):6.2f} s   test accuracy {accuracy[name]:.3f}")
    ratios = [b / a for a, b in zip(seconds["PyTorch loop"], seconds["tg.Classifier"], strict=True)]
    print(
        f"ratio tg.Classifier / PyTorch loop: median {statistics.median(ratios):.3f}, "
        f"min {min(ratios):.3f}, max {max(ratios):.3f} over {rounds} rounds"
    )


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
