"""The script that measures truncated backpropagation's memory."""

from __future__ import annotations

import bptt_memory


def test_a_pass_in_windows_takes_less_than_one_at_once() -> None:
    windows, at_once = (bptt_memory.measured(32_768, window, 2, 32) for window in (64, 32_768))
    assert windows < at_once / 2
