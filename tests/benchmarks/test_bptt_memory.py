"""The script that measures truncated backpropagation's memory runs, windows and all."""

from __future__ import annotations

import bptt_memory


def test_a_pass_in_windows_and_one_at_once_are_measured() -> None:
    for window in (16, 512):
        assert bptt_memory.peak_mib(512, window, 2, 8) >= 0
