"""Pooling and networks: real steps alone count, in every direction and connection (A9, C1, D1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tidegate.cells import CELLS, ConvGRU
from tidegate.config import make_config
from tidegate.data.batch import Batch
from tidegate.errors import ConfigError
from tidegate.tasks.classification import Classification
from tidegate.tasks.network import Architecture, Pool, SequenceNetwork

LENGTHS = torch.tensor([4, 1, 0, 3])


@pytest.mark.parametrize("cell", [name for name, kind in CELLS.items() if not kind.inputs])
def test_every_cell_that_reads_the_columns_alone_makes_a_network(cell: str) -> None:
    architecture = Architecture(cell=cell, hidden_size=5, layers=2, bidirectional=True, dropout=0.1)
    network = SequenceNetwork(architecture, Classification(target="y", classes=("a", "b")), 3, (4,))
    network.recurrent.backend = "reference"  # which kernels are held to elsewhere, and which takes no compiling
    x = torch.randn(4, 4, network.columns.width)
    out, _ = network.recurrent(x, lengths=LENGTHS)
    network.pool(out, LENGTHS).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.recurrent.parameters())


@pytest.mark.parametrize(
    ("cell", "reads"), [("gru_d", "elapsed and observed"), ("t_lstm", "elapsed"), ("cfc", "elapsed")]
)
def test_a_cell_that_reads_more_is_refused_with_what_it_reads(cell: str, reads: str) -> None:
    with pytest.raises(ConfigError, match=f"cell='{cell}', which reads {reads} too; try: tg.nn.Recurrent takes it"):
        Architecture(cell=cell).recurrent(3)


@pytest.mark.parametrize("cell", ["conv_lstm", ConvGRU])
def test_a_cell_that_reads_frames_is_refused(cell: Any) -> None:
    known = list(CELLS)
    name = make_config({"cell": cell}).cell
    with pytest.raises(ConfigError, match=f"cell='{name}', which reads frames; try: tg.nn.Recurrent takes it"):
        Architecture(cell=name).recurrent(3)
    assert list(CELLS) == known


def outputs(width: int) -> torch.Tensor:
    x = torch.randn(4, 4, width, generator=torch.Generator().manual_seed(0))
    return x * (torch.arange(4) < LENGTHS[:, None])[..., None]


def test_pools_are_the_plain_formulas_over_real_steps() -> None:
    x = outputs(6)
    for row, n in enumerate(LENGTHS.tolist()):
        real = x[row, :n]
        expected = {
            "last": real[-1] if n else torch.zeros(6),
            "mean": real.mean(0) if n else torch.zeros(6),
            "max": real.amax(0) if n else torch.zeros(6),
        }
        expected["last_mean"] = torch.cat([expected["last"], expected["mean"]])
        for kind, value in expected.items():
            torch.testing.assert_close(Pool(kind, bidirectional=False)(x, LENGTHS)[row], value)  # type: ignore[arg-type]


@pytest.mark.parametrize(("layers", "connection"), [(1, None), (2, None), (3, "skip"), (2, "dense"), (2, "residual")])
def test_last_is_where_each_direction_ends(layers: int, connection: str | None) -> None:
    torch.manual_seed(0)
    architecture = Architecture(hidden_size=5, layers=layers, connection=connection, bidirectional=True, pooling="last")
    network = SequenceNetwork(architecture, Classification(target="y", classes=("a", "b")), 3, ())
    x = torch.randn(4, 4, 3)
    out, state = network.recurrent(x, lengths=LENGTHS)
    pooled = network.pool(out, LENGTHS)
    if connection in (None, "dense"):
        expected = state[-2:].transpose(0, 1).flatten(1)
    elif connection == "skip":
        expected = state.transpose(0, 1).flatten(1)
    else:
        expected = torch.cat([torch.stack([o[max(n - 1, 0), :5] for o, n in zip(out, LENGTHS)]), out[:, 0, 5:]], 1)  # noqa: B905
    torch.testing.assert_close(pooled, expected)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "last_mean"])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_padding_changes_nothing(pooling: str, norm: str | None) -> None:
    torch.manual_seed(0)
    architecture = Architecture(hidden_size=5, layers=2, bidirectional=True, pooling=pooling, norm=norm)  # type: ignore[arg-type]
    network = SequenceNetwork(architecture, Classification(target="y", classes=("a", "b")), 3, (4,))
    dense, codes = torch.randn(4, 4, 3), torch.randint(0, 4, (4, 4, 1))
    more = torch.full((4, 2, 3), 9.0), torch.full((4, 2, 1), 3)
    short = network(Batch(dense, codes, LENGTHS, torch.arange(4)))
    noisy = dense.masked_fill((torch.arange(4) >= LENGTHS[:, None])[..., None], 7.0)
    long = network(Batch(torch.cat([noisy, more[0]], 1), torch.cat([codes, more[1]], 1), LENGTHS, torch.arange(4)))
    torch.testing.assert_close(short, long)
