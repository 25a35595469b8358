"""What a report says of a model that writes text: what it wrote."""

from __future__ import annotations

from typing import Any

from tidegate.report.alignment import alignment_sections
from tidegate.report.markup import About, Cell, Plots, section, table, text

_TEMPERATURES = (0.5, 0.8, 1.0)
_SAMPLE_TOKENS = {"character": 500, "subword": 150, "word": 100}
_PAIRS, _PICTURES = 20, 3


def about_text(model: Any, prepared: Any) -> About:
    """Return the title, facts of the run, and how sections on what the model writes are made."""
    if model.blueprint.kind == "language":
        unit = model.blueprint.vocabulary.unit
        task = f"generate: the next {unit} after every {unit}"
        return "Language model", [("Task", task)], lambda _: _samples(model)
    source, target = model.blueprint.columns
    title = f"Translation of {source} to {target}"
    return title, [("Task", "translate")], lambda plots: _translations(model, prepared, plots)


def _samples(model: Any) -> str:
    length = _SAMPLE_TOKENS[model.blueprint.vocabulary.unit]
    shown = []
    for temperature in _TEMPERATURES:
        sample = model.generate(length=length, temperature=temperature, seed=0)
        shown.append(f'<p>Temperature {temperature:g}</p><pre tabindex="0">{text(sample)}</pre>')
    return section("What it writes", "".join(shown))


def _translations(model: Any, prepared: Any, plots: Plots) -> str:
    pairs = prepared.valid.maker.pairs
    sources, targets = pairs.sources[:_PAIRS], pairs.targets[:_PAIRS]
    rows: list[list[Cell]] = [list(row) for row in zip(sources, targets, model.translate(sources), strict=True)]
    shown = section("What it writes", table(["Source", "Truth", "Translation"], rows, "The first validation pairs"))
    if model.blueprint.attention is None:
        return shown
    return shown + alignment_sections([model.align(each) for each in sources[:_PICTURES]], plots)
