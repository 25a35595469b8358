"""The page about a training run: one file, no network, nothing but what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from tidegate.files import write_atomically
from tidegate.report import figures
from tidegate.report.document import document
from tidegate.report.markup import Cell, Plots, cards, facts, figures_of, folded, section, share, table, text
from tidegate.report.tables import about_table
from tidegate.report.texts import about_text
from tidegate.train.loop import TrainResult
from tidegate.train.progress import kept_weights

_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "exact_match", "interval_coverage")
_MEANING = {
    "loss": "what training minimises",
    "accuracy": "share of right answers",
    "perplexity": "e to the mean loss a token",
    "balanced_accuracy": "recall, averaged over classes",
    "macro_f1": "F1, averaged over classes or labels",
    "exact_match": "share with every label right",
    "mae": "mean absolute error, target's units",
    "rmse": "root mean square error, target's units",
    "r2": "1 is perfect, 0 is the mean",
    "scaled_mse": "mean square error, standard units",
    "scaled_mae": "mean absolute error, standard units",
    "interval_coverage": "truths inside the widest interval",
}
_NAMES = {
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "macro_f1": "Macro F1",
    "scaled_mse": "Scaled MSE",
    "scaled_mae": "Scaled MAE",
}


class Trained(Protocol):
    """A finished training, as `tidegate.run` returns it."""

    @property
    def model(self) -> Any: ...
    @property
    def result(self) -> TrainResult: ...
    @property
    def prepared(self) -> Any: ...
    @property
    def notes(self) -> list[str]: ...


def write_report(path: Path, trained: Trained, data: str) -> None:
    """Write the report of a training run as one HTML page, whole or not at all.

    Of a table, the validation part is run through the network once more; figures and tables cover all of it unless
    their caption says otherwise. Of the path `data` the name is shown. The same training gives the same page. What
    UTF-8 cannot hold (half of a surrogate pair, in the name of a file) is shown as its escape.
    """
    write_atomically(path, page(trained, data).encode(errors="backslashreplace"))


def page(trained: Trained, data: str) -> str:
    """Return the page as text."""
    plots = Plots()
    about = about_table if trained.model.blueprint.kind == "table" else about_text
    title, pairs, sections = about(trained.model, trained.prepared)
    body = "".join(
        [
            cards(_card(name, value) for name, value in trained.result.metrics.items()),
            section("The run", facts([("Data", Path(data).name), *pairs, *_training(trained)])),
            _learning(trained.result, plots),
            sections(plots),
            _config(trained),
            _notes(trained.notes),
        ]
    )
    lead = (
        f"Trained on {text(Path(data).name)}. Figures are of the validation part: "
        f"no weight was fitted to it{_chose(trained.result)}."
    )
    return document(f"{title} – Tidegate", title, lead, body, plots)


def _chose(result: TrainResult) -> str:
    return ", but it chose the best epoch" if result.kept_epoch == result.best_epoch else ""


def _title(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " ").capitalize())


def _card(name: str, value: float) -> tuple[str, str, str]:
    return _title(name), share(value) if name in _SHARES else figures_of(float(value)), _MEANING.get(name, "")


def _training(trained: Trained) -> list[tuple[str, object]]:
    arch, result = trained.model.blueprint.architecture, trained.result
    weights = sum(p.numel() for p in trained.model.network.parameters())
    shape = [f"{arch.hidden_size} units", f"{arch.layers} layer{'s' * (arch.layers > 1)}"]
    return [
        *((k.replace("_", " ").capitalize(), f"{v:,}") for k, v in trained.prepared.sizes.items()),
        ("Cell", f"{arch.cell}, {', '.join(shape + ['both directions'] * arch.bidirectional)}"),
        ("Weights", f"{weights:,}"),
        ("Epochs", f"{len(result.history)}; {kept_weights(result.best_epoch, result.kept_epoch)}"),
        ("Ended because", result.reason),
    ]


def _learning(result: TrainResult, plots: Plots) -> str:
    history, best = result.history, None if result.best_epoch is None else result.best_epoch + 1
    epochs = [int(row["epoch"]) + 1 for row in history]
    loss = {"Training": [float(row["train_loss"]) for row in history]}
    if all("valid_loss" in row for row in history):
        loss["Validation"] = [float(row["valid_loss"]) for row in history]
    parts = [
        plots.frame(
            figures.curves(loss, epochs, "Loss", best),
            "Mean loss by epoch." + ("" if best is None else f" The dotted line is the best epoch, {best}."),
        )
    ]
    names = [k for k in result.metrics if k != "loss" and all(f"valid_{k}" in row for row in history)]
    for family, y in (
        ([k for k in names if k in _SHARES], "Share"),
        ([k for k in names if k in ("mae", "rmse")], "Error"),
    ):
        if family:
            lines = {_title(k): [float(row[f"valid_{k}"]) for row in history] for k in family}
            parts.append(plots.frame(figures.curves(lines, epochs, y, best), "On the validation part, by epoch."))
    heads = ["Epoch", "Training loss", *(f"{_title(k)}" for k in result.metrics), "Learning rate"]
    rows: list[list[Cell]] = [
        [
            int(row["epoch"]) + 1,
            float(row["train_loss"]),
            *(float(row[f"valid_{k}"]) for k in result.metrics),
            float(row["lr"]),
        ]
        for row in history
    ]
    every = folded("Every epoch in numbers", table(heads, rows, "Training loss, then validation figures"))
    return section("Learning curves", f'<div class="grid">{"".join(parts)}</div>', every)


def _config(trained: Trained) -> str:
    body = json.dumps(trained.prepared.config.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return section("Configuration", folded("Every option of this run", f'<pre tabindex="0">{text(body)}</pre>'))


def _notes(notes: list[str]) -> str:
    return section("Notes", f'<ul class="notes">{"".join(f"<li>{text(n)}</li>" for n in notes)}</ul>') if notes else ""
