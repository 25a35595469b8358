"""The forecasting network: small series beside large ones, flat and empty look-backs, channels (D4)."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

import tidegate as tg
from tidegate.data.batch import Batch
from tidegate.tasks.forecast_network import ForecastNetwork
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Architecture


def network(targets: int = 1, channels: str = "shared") -> ForecastNetwork:
    torch.manual_seed(0)
    names, zeros, ones = tuple(f"y{i}" for i in range(targets)), (0.0,) * targets, (1.0,) * targets
    task = Forecasting(targets=names, mean=zeros, std=ones, horizon=3, lookback=8)
    return ForecastNetwork(Architecture(hidden_size=6, channels=channels), task, 0, (), 0, ()).eval()  # type: ignore[arg-type]


def batch(history: torch.Tensor, lengths: list[int] | None = None) -> Batch:
    rows = len(history)
    held = torch.tensor(lengths or [history.shape[1]] * rows)
    empty = torch.zeros(rows, history.shape[1], 0)
    return Batch(empty, empty.long(), held, torch.arange(rows), history=history)


def test_a_window_shifted_and_scaled_is_forecast_alike_but_for_what_the_network_makes_of_its_size() -> None:
    net = network()
    net.context.weight.data[:, -2:] = 0  # the two inputs that tell level and scale
    y = torch.randn(2, 8, 1)
    torch.testing.assert_close(net(batch(y * 0.002 + 5)), net(batch(y)) * 0.002 + 5, atol=1e-4, rtol=1e-4)


def test_missing_and_short_look_backs() -> None:
    net, y = network(), torch.randn(1, 8, 1)
    short = net(batch(torch.cat([y[:, :5], torch.full((1, 3, 1), torch.nan)], 1), [5]))
    noisy = net(
        batch(torch.cat([y[:, :5], torch.full((1, 3, 1), 7.0)], 1).where(torch.arange(8)[:, None] < 5, torch.nan), [5])
    )
    torch.testing.assert_close(short, noisy)
    nothing = net(batch(torch.full((1, 8, 1), torch.nan)))
    assert nothing.isfinite().all()
    flat = batch(torch.full((1, 8, 1), 3.0))
    flat.history.requires_grad_()  # type: ignore[union-attr]
    net(flat).sum().backward()
    assert flat.history.grad.isfinite().all()  # type: ignore[union-attr]


def test_shared_channels_do_not_see_each_other_and_joint_ones_do() -> None:
    y = torch.randn(1, 8, 2)
    other = y.clone()
    other[..., 1] += torch.randn(8)
    shared, joint = network(2), network(2, "joint")
    assert torch.equal(shared(batch(y))[:, :, 0], shared(batch(other))[:, :, 0])
    assert not torch.equal(joint(batch(y))[:, :, 0], joint(batch(other))[:, :, 0])


def test_a_small_series_beside_a_large_one_is_forecast_at_its_own_size() -> None:
    steps = np.arange(150)
    frame = pl.concat(
        pl.DataFrame({"shop": name, "t": steps, "y": size * (3 + np.sin(2 * np.pi * steps / 12))})
        for name, size in (("large", 1000.0), ("small", 1.0))
    )
    model = tg.fit(
        frame.filter(pl.col("t") < 138), "y", id="shop", time="t", horizon=12, lookback=24, epochs=15,
        hidden_size=16, quiet=True,
    )  # fmt: skip
    joined = model.predict(frame.filter(pl.col("t") < 138)).join(frame, on=["shop", "t"], suffix="_true")
    small = joined.filter(pl.col("shop") == "small")
    assert float((small["y"] - small["y_true"]).abs().mean()) < 0.5
