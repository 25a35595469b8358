"""A GRU looks back, attention weighs what it saw, a dense layer says the next day: an electricity transformer."""

from pathlib import Path

import polars as pl
import torch
import torch.nn.functional as F
import typer
from _reading import text
from _training import fit
from torch import Tensor, nn

import tidegate as tg


class Forecaster(nn.Module):
    """The change from the same hours of the day before, for all columns at once."""

    def __init__(self, columns: int, horizon: int, hidden: int = 64) -> None:
        super().__init__()
        self.horizon = horizon
        self.encoder = tg.nn.GRU(columns, hidden, batch_first=True)
        self.attention = tg.nn.Attention(hidden, hidden)
        self.dense = nn.Linear(2 * hidden, horizon * columns)

    def forward(self, x: Tensor) -> Tensor:
        level = x[:, -self.horizon :].mean(1, keepdim=True)
        seen, last = self.encoder(x - level)
        context, _ = self.attention(last[-1], seen)
        change = self.dense(torch.cat([context, last[-1]], -1)).view(len(x), self.horizon, -1)
        return x[:, -self.horizon :] + change


def main(data: Path, epochs: int = 6, every: int = 1, lookback: int = 72, horizon: int = 24) -> dict[str, float]:
    """Return mean squared errors on months held out, in training's variances; `data` is ETTh1's gzip file.

    A year of hours to learn from, as in the published split; the four months after the next four to be tested on.
    `every` leaves out training windows.
    """
    torch.manual_seed(0)
    values = pl.read_csv(text(data).encode()).drop("date").to_torch().float()
    mean, std = values[:8640].mean(0), values[:8640].std(0)
    windows = ((values - mean) / std).unfold(0, lookback + horizon, 1).transpose(1, 2)
    train = windows[: 8640 - lookback - horizon + 1 : every]
    test = windows[11520 - lookback : 14400 - lookback - horizon + 1]
    x, y = test.split([lookback, horizon], 1)
    model = Forecaster(values.shape[1], horizon)

    def loss(rows: Tensor) -> Tensor:
        return F.mse_loss(model(train[rows, :lookback]), train[rows, lookback:])

    fit(model, loss, len(train), epochs=epochs, lr=1e-3)
    with torch.no_grad():
        forecasts = {"model": model(x), "last value": x[:, -1:].expand_as(y), "day before": x[:, -horizon:]}
    errors = {name: float(F.mse_loss(forecast, y)) for name, forecast in forecasts.items()}
    print(", ".join(f"{name} {error:.3f}" for name, error in errors.items()))
    return errors


if __name__ == "__main__":
    typer.run(main)
