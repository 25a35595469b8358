"""Choosing a backend, and refusing."""

from __future__ import annotations

import os

import pytest
import torch

from tidegate.cells import CELLS, GRU, LSTM, Elman
from tidegate.compile import aten, compiled, reference, select
from tidegate.compile.call import Call
from tidegate.compile.llvm.host import target
from tidegate.compile.select import BACKENDS, choose, unroll, verdicts
from tidegate.errors import BackendError, ConfigError, ShapeError


class Changed(LSTM):
    """A subclass is not exactly torch's cell."""

    def step(self, x, h, c):  # type: ignore[no-untyped-def]
        h, c = super().step(x, h, c)
        return h, c.clamp(-1, 1)


X = torch.randn(2, 5, 3)
CORES = os.cpu_count() or 1
RESETS = torch.zeros(2, 5, dtype=torch.bool)


def test_auto_compiles_what_it_can_and_takes_the_reference_elsewhere() -> None:
    for cell in (GRU(3, 4), Changed(3, 4), Elman(3, 4, activation="gelu"), Elman(3, 4, activation=torch.tanh)):
        assert choose(Call(cell, X)) == "llvm"
        assert choose(Call(cell, X, resets=RESETS)) == "llvm"
    assert choose(Call(GRU(3, 4), X[:, :0])) == "llvm"
    assert choose(Call(CELLS["mingru"](3, 4), X)) == "llvm"
    assert choose(Call(CELLS["mingru"](3, 4), torch.zeros(1, 1, 3).expand(1, 40000, 3))) == "scan"
    assert choose(Call(CELLS["lru"](3, 4), X)) == "scan"
    assert choose(Call(Elman(3, 4, activation=torch.special.i0), X)) == "reference"
    assert choose(Call(LSTM(3, 4), torch.randn(2, 100, 3))) == "llvm"
    assert choose(Call(GRU(3, 4).half(), X)) == "aten"
    assert choose(Call(Changed(3, 4).half(), X)) == "reference"


@pytest.mark.parametrize(
    ("isa", "rows", "steps", "units", "chosen"),
    [
        ("avx2", 2, 5, 4, "aten"), ("avx2", 2, 100, 4, "llvm"), ("avx2", 2, 100, 256, "aten"),
        ("avx512", 2, 5, 4, "llvm"), ("avx512", 999, 5, 256, "aten"), ("avx512", 2, 100, 255, "llvm"),
        ("amx", 2, 5, 4, "llvm"), ("amx", 2, 5, 256, "aten"), ("amx", 16 * 3 * CORES, 5, 256, "llvm"),
    ],
)  # fmt: skip
def test_torchs_lstm_is_taken_where_it_is_faster(
    isa: str, rows: int, steps: int, units: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is chosen is only asked for: this machine need not be able to run it.
    monkeypatch.setattr(select, "host", lambda: target(isa))
    x = torch.randn(rows, steps, 3)
    assert choose(Call(LSTM(3, units), x)) == chosen
    assert choose(Call(LSTM(3, units), x, lengths=torch.full((rows,), steps))) == "llvm"
    assert choose(Call(LSTM(3, units, proj_size=2), x)) == "llvm"
    assert choose(Call(GRU(3, units), x)) == "llvm"


def test_a_named_backend_is_never_replaced() -> None:
    with pytest.raises(BackendError) as raised:
        unroll(GRU(3, 4), X, resets=RESETS, backend="aten")
    assert str(raised.value) == (
        "running GRU with backend='aten'; got torch's kernels cannot reset the state within a sequence; "
        "try: backend='auto', or one that can: llvm, reference"
    )


def test_the_named_backend_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    for name, module in (("llvm", compiled), ("aten", aten), ("reference", reference)):
        original = BACKENDS[name]

        def spy(*a, name=name, original=original):  # type: ignore[no-untyped-def]
            ran.append(name)
            return original.unroll(*a)

        monkeypatch.setitem(BACKENDS._items, name, type(original)(spy, original.refuses))
        assert module.unroll is original.unroll
    for name in ("aten", "reference", "auto", "llvm"):
        unroll(GRU(3, 4), X, backend=name)
    assert ran == ["aten", "reference", "llvm", "llvm"]


def test_verdicts_name_every_backend() -> None:
    said = verdicts(Call(GRU(3, 4), X, resets=RESETS))
    assert list(said) == list(BACKENDS)
    assert said["reference"] is None


def test_an_unknown_backend_is_answered_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'reference'"):
        unroll(GRU(3, 4), X, backend="refrence")


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": torch.tensor([6, 1])}, r"every length in 0..5 \(T\); got 6 in row 0"),
        ({"lengths": [5, -1]}, "got -1 in row 1"),
        ({"lengths": [5]}, r"shape \[2\]; got shape \[1\]"),
        ({"state": torch.zeros(1, 4)}, r"states of shapes \[\[2, 4\]\]; got \[\[1, 4\]\]"),
        ({"state": (torch.zeros(2, 4),) * 2}, r"got \[\[2, 4\], \[2, 4\]\]"),
        ({"resets": torch.zeros(2, 4, dtype=torch.bool)}, r"one for each step, \[2, 5\]"),
        ({"x": torch.zeros(2, 5, 4)}, r"x of shape \[B, T, 3\]; got shape \[2, 5, 4\]"),
    ],
)
def test_arguments_are_checked_before_any_backend(backend: str, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        unroll(**{"cell": GRU(3, 4), "x": X, "backend": backend, **arguments})


def test_reasons_are_worded_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Changed, "extra_repr", lambda _: asked.append(1) or "")
    cell = Changed(3, 4)
    unroll(cell, X)
    assert not asked
    verdicts(Call(cell, X))
    assert asked
