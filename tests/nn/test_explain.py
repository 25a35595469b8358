"""What runs, and why the others would not."""

from __future__ import annotations

import pytest
import torch

from tidegate.cells import CELLS, GRU
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import LSTM, Recurrent, explain

X = torch.randn(2, 5, 3)


SCAN = "    scan       refuses: GRU gives no coefficients: its state is not linear in itself"


def test_every_layer_and_direction_with_every_backend() -> None:
    said = str(explain(Recurrent(GRU(3, 4), layers=2, bidirectional=True), X))
    rest = [SCAN, "    llvm       runs", "    aten       could run", "    reference  could run"]
    assert said.splitlines() == [
        line
        for where, size in (("0", 3), ("0 backward", 3), ("1", 8), ("1 backward", 8))
        for line in (f"layer {where}: GRU({size}, 4) runs on 'llvm'", *rest)
    ]


def test_reasons_and_named_backends() -> None:
    merge = Recurrent(CELLS["gru_merge"](3, 4))
    (verdict,) = explain(merge, X).verdicts
    assert verdict.chosen == "llvm"
    assert verdict.refusals["aten"] == "torch has no kernel for GRUMerge(3, 4)"
    assert verdict.refusals["llvm"] is None
    (verdict,) = explain(Recurrent(GRU(3, 4)), X, resets=torch.zeros(2, 5, dtype=torch.bool)).verdicts
    assert "cannot reset" in str(verdict.refusals["aten"])
    assert explain(Recurrent(GRU(3, 4), backend="reference"), X).verdicts[0].chosen == "reference"


def test_a_model_is_searched() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), Recurrent(GRU(3, 4)))
    assert str(explain(model, X)).startswith("1 layer 0: GRU(3, 4) runs on 'llvm'")
    with pytest.raises(ConfigError, match="a Recurrent, or a module with one inside; got Linear"):
        explain(torch.nn.Linear(3, 3), X)


def test_a_named_backend_that_refuses_does_not_run() -> None:
    said = str(explain(Recurrent(CELLS["gru_merge"](3, 4), backend="aten"), X)).splitlines()
    assert said[0] == "layer 0: GRUMerge(3, 4) cannot run on 'aten'"
    assert said[3] == "    aten       refuses: torch has no kernel for GRUMerge(3, 4)"


def test_packed_sequences_and_single_ones() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([X[0], X[1, :2]])
    wide = LSTM(3, 256)
    assert explain(wide, packed).verdicts[0].chosen == "aten"
    assert explain(wide, X[0]).verdicts[0].chosen == "aten"
    assert "got shape [1, 0, 3]" in str(explain(wide, X[0, :0]).verdicts[0].refusals["aten"])


@pytest.mark.parametrize("batch_first", [True, False])
def test_what_a_cell_reads_beside_x_is_given_by_name(batch_first: bool) -> None:
    layer = Recurrent(CELLS["t_lstm"](3, 4), layers=2, batch_first=batch_first)
    x = X if batch_first else X.transpose(0, 1)
    said = explain(torch.nn.Sequential(layer, Recurrent(GRU(4, 4), batch_first=batch_first)), x, elapsed=x[..., 0])
    assert [v.cell for v in said.verdicts] == ["TimeLSTM(3, 4)", "TimeLSTM(4, 4)", "GRU(4, 4)"]
    assert all(v.refusals["reference"] is None for v in said.verdicts)
    with pytest.raises(ConfigError, match=r"the inputs \['elapsed'\] beside x"):
        explain(layer, x)


@pytest.mark.parametrize("x", [X.numpy(), X[0, 0], None])
def test_what_no_layer_runs_on_is_told(x: object) -> None:
    with pytest.raises(ShapeError, match="explaining a layer; expected x, a tensor of the shape that the layer"):
        explain(Recurrent(GRU(3, 4)), x)  # type: ignore[arg-type]
