"""Records of runs, which tests that change how a run is done must do without."""

from __future__ import annotations

from tidegate.compile.launch import Records
from tidegate.compile.operator import NATIVES


def forget_records() -> None:
    """Have every run recorded anew."""
    for native in list(NATIVES.values()):
        native._records = Records()
