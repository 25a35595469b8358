"""Sizes as they are asked for."""

from __future__ import annotations

import pytest

from tidegate.bench.grid import GRID, Size, read_sizes
from tidegate.bench.run import make_plan
from tidegate.errors import ConfigError


def test_sizes_are_read_as_they_are_written() -> None:
    assert read_sizes("32x64, 8x64x1000") == (Size(32, 64, 100), Size(8, 64, 1000))
    assert read_sizes(",".join(map(str, GRID))) == GRID


@pytest.mark.parametrize("text", ["32", "32x", "0x64", "-1x64", "32x64x1x1", "ax64", "32x64,", "³x64"])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"reading --sizes; expected .*; got '.*'; try: --sizes 32x64"):
        read_sizes(text)


def test_nothing_asked_for_is_everything() -> None:
    plan = make_plan()
    assert plan.sizes == GRID
    assert {"elman", "gru", "gru_reset_before", "lstm", "lstm_layer_norm", "lstm_peephole", "lstm_noise"} <= set(
        plan.cells
    )
    assert plan.first_calls == plan.cells


def test_names_are_looked_up_before_anything_is_timed() -> None:
    with pytest.raises(ConfigError, match="did you mean 'lstm'"):
        make_plan("gru,lstn")
    with pytest.raises(ConfigError, match="known backend"):
        make_plan(backend="nothing")
    with pytest.raises(ConfigError, match="--threads"):
        make_plan(threads=0)
