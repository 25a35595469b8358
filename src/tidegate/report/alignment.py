"""What each word of a translation looked at, as pictures on a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tidegate.data.output import check_place
from tidegate.files import write_atomically
from tidegate.report import figures
from tidegate.report.document import document
from tidegate.report.markup import Plots, section

MOST = 20
"""Pictures on a page: each takes a screen."""


class Aligned(Protocol):
    """A translation with the weights [T, S] of its tokens over those of its source."""

    @property
    def source(self) -> list[str]: ...
    @property
    def target(self) -> list[str]: ...
    @property
    def weights(self) -> np.ndarray: ...
    @property
    def text(self) -> str: ...
    @property
    def translation(self) -> str: ...


def write_alignments(path: Path, alignments: Sequence[Aligned]) -> None:
    """Write a page with a picture of each alignment, whole or not at all; raise where there is no place for it."""
    check_place(f"drawing alignments into {path}", path)
    write_atomically(path, alignments_page(alignments).encode(errors="backslashreplace"))


def alignments_page(alignments: Sequence[Aligned]) -> str:
    """Return the page as text."""
    plots = Plots()
    lead = (
        "Each row is a token of the translation, each column one of the source; the darker, the more it looked there."
    )
    return document("Attention – Tidegate", "Attention", lead, alignment_sections(alignments, plots), plots)


def alignment_sections(alignments: Sequence[Aligned], plots: Plots) -> str:
    """Return a section for each alignment that is not empty: the translation, and its picture."""
    return "".join(
        section(
            each.translation,
            plots.frame(
                figures.alignment(each.weights, each.source, each.target),
                f"From: {each.text}",
            ),
        )
        for each in alignments
        if each.target
    )
