"""The page of a learning-rate test."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.report.document import document
from tidegate.report.figures import rate_curve
from tidegate.report.markup import Plots, cards, figures_of, section


def rates_page(rates: Sequence[float], losses: Sequence[float], suggested: float | None, data: str) -> str:
    """Return the page: the loss over the rate, and the rate that is suggested."""
    plots = Plots()
    figure = plots.frame(rate_curve(rates, losses, suggested), "Smoothed training loss while the rate grows", wide=True)
    said = (
        "The loss fell at no rate: look at the data, or start lower."
        if suggested is None
        else "Where the loss falls fastest."
    )
    shown = cards([("Suggested rate", figures_of(suggested), said)])
    return document("Learning rates", "Which learning rate", data, section("Loss by rate", shown, figure), plots)
