"""Every candidate computes what the reference does, and one that does not is found."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import pytest
import torch

from tidegate.bench import jax_scan, measure
from tidegate.bench.cases import CASES, Case, States
from tidegate.bench.grid import Size
from tidegate.bench.measure import TOLERANCE, Effort, disagreements, time_in_turns
from tidegate.bench.peers import Candidate, Loop, Tidegate, draw, native
from tidegate.bench.run import make_plan, measure_size

OWN = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "cells.py"))["TwoSpeedCase"]
KINDS = {**dict(CASES.items()), "two_speed": OWN}
BATCH, STEPS, UNITS = 3, 5, 7


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def compared(case: Case, *kinds: type) -> list[str]:
    cell = case.cell(UNITS)
    x = torch.randn(BATCH, STEPS, UNITS)
    dy = torch.randn_like(x)
    weights = dict(cell.named_parameters())
    candidates: list[Candidate] = [kind(case, weights, x, dy) for kind in kinds]
    if case.native is not None:
        candidates.append(native(case.native, weights, x, dy))
    candidates.append(Tidegate(cell, "auto", x, dy))
    return disagreements(candidates, cell, x, dy, draw(case.masks, x) or None)


@pytest.mark.parametrize("name", KINDS)
def test_torch_agrees_with_the_reference(name: str) -> None:
    assert compared(KINDS[name](), Loop) == []


# XLA compiles for a second or three each; the richest of them goes with the quick tests.
@pytest.mark.parametrize(
    "name", [name if name == "lstm_noise" else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_jax_agrees_with_the_reference(name: str) -> None:
    pytest.importorskip("jax", reason="jax.lax.scan is a peer only where jax is installed")
    assert compared(KINDS[name](), jax_scan.JaxScan) == []


class Wrong(CASES["elman"]):
    """An equation that is off by a little more than is allowed."""

    def step(self, f, k, x: States, states: States) -> States:
        (h,) = super().step(f, k, x, states)
        return (h * (1 + 2 * TOLERANCE),)


def test_a_wrong_candidate_fails_its_rows_and_is_not_timed() -> None:
    rows = list(measure_size("wrong", Wrong(), Size(BATCH, UNITS, STEPS), make_plan(quick=True), with_jax=False))
    assert [row.mode for row in rows] == ["forward", "train"]
    for row in rows:
        assert row.times == {}
        assert row.ratio is None
        assert any(reason.startswith("torch loop: ") for reason in row.wrong)
        assert not any(reason.startswith(("torch.nn", "tidegate")) for reason in row.wrong)


def test_a_named_backend_that_refuses_is_said_and_the_row_stays() -> None:
    plan = make_plan(backend="aten,reference", quick=True)
    rows = list(measure_size("gru", CASES["gru_reset_before"](), Size(BATCH, UNITS, STEPS), plan, with_jax=False))
    for row in rows:
        assert set(row.times) == {"tidegate", "tidegate reference", "torch loop"}
        assert "no kernel" in row.refused["tidegate aten"]
        assert row.ratios.keys() == {"torch loop"}


def test_noise_is_drawn_in_training_by_everyone() -> None:
    case = CASES["lstm_noise"]()
    cell, x = case.cell(UNITS), torch.randn(BATCH, STEPS, UNITS)
    weights = dict(cell.named_parameters())
    for candidate in (Tidegate(cell, "auto", x, x), Loop(case, weights, x, x)):
        train = candidate.timed("train")
        assert not torch.equal(train()[0], train()[0]), candidate.name
        forward = candidate.timed("forward")
        assert torch.equal(forward(), forward()), candidate.name


def test_the_order_of_turns_moves_on() -> None:
    called: list[str] = []
    calls = {name: lambda name=name: called.append(name) for name in "abc"}
    assert set(time_in_turns(calls, Effort(rounds=3, turn_seconds=0.0))) == {"a", "b", "c"}
    assert "".join(called) == "abcbcacab"


@pytest.mark.parametrize(("first", "median"), [(9.0, 1.0), (50.0, 50.0)])
def test_a_turns_first_call_counts_only_where_it_fills_the_turn(
    first: float, median: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = itertools.chain([first], itertools.repeat(1.0))
    monkeypatch.setattr(measure, "milliseconds", lambda call: next(times))
    assert time_in_turns({"a": int}, Effort(rounds=1, turn_seconds=0.01)) == {"a": median}
