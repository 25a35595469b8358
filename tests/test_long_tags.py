"""Tags of long sequences, trained on some steps at a time with the state carried on (B5, D3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg
from tidegate.config import make_config
from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import ConfigError
from tidegate.prepare.plan import prepare
from tidegate.run import train
from tidegate.train.evaluation import predictions
from tidegate.train.events import Event, Step
from tidegate.train.loop import LoaderLike, fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings

OPTIONS = {
    "target": "tag", "id": "row", "task": "tagging", "hidden_size": 8, "epochs": 4, "batch_size": 2, "lr": 2e-2,
    "bptt_steps": 5, "device": "cpu", "dropout": 0.0,
}  # fmt: skip


def table(rows: int = 8, steps: int = 23) -> pl.DataFrame:
    """Return sequences whose tag at every step is what the first step said."""
    random = np.random.default_rng(0)
    first = np.repeat(np.arange(rows) % 2 * 2.0 - 1, steps)
    x = random.normal(size=rows * steps) * 0.3
    x[::steps] = first[::steps] * 3
    return pl.DataFrame({"row": np.repeat(np.arange(rows), steps), "x": x, "tag": np.where(first > 0, "up", "down")})


class KilledError(Exception):
    pass


def test_what_was_read_long_ago_is_known_in_the_last_span() -> None:
    """Spans of five steps: the last begins twenty steps after the only one that says anything."""
    done = train(table(), make_config({**OPTIONS, "epochs": 30, "valid": 0.25}))
    assert done.prepared.train.steps == 3 * 5
    assert done.prepared.config.bidirectional is False
    late = done.model.predict(table()).filter(pl.col("step") >= 20)
    assert (late["tag"] == table().filter(pl.int_range(pl.len()).over("row") >= 20)["tag"]).all()


def test_whole_sequences_and_spans_are_predicted_alike() -> None:
    done = train(table(), make_config({**OPTIONS, "layers": 2, "cell": "lstm"}))
    spans = done.prepared.valid
    pieces = torch.cat([p for _, p in predictions(done.model.network, spans)], 1)
    whole = spans.maker.make(np.arange(len(spans.maker.lengths)))
    with torch.inference_mode():
        torch.testing.assert_close(pieces, done.model.network(whole)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("at", [(0, 3), (1, 0), (2, 7)])
def test_a_run_killed_between_spans_goes_on_bit_for_bit(tmp_path: Path, at: tuple[int, int]) -> None:
    settings = TrainSettings(epochs=3, lr=1e-2, checkpoint_every_seconds=1e-9)

    def made() -> tuple[torch.nn.Module, LoaderLike, LoaderLike]:
        read = load_table(open_source(table()), id="row")
        prepared = prepare(read, make_config({**OPTIONS, "cell": "lstm", "dropout": 0.2}))
        seed_everything(0)
        return prepared.blueprint.network(), prepared.train, prepared.valid

    def kill(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == at:
            raise KilledError

    whole = made()
    expected = fit(*whole, settings)
    with pytest.raises(KilledError):
        fit(*made(), settings, run_dir=tmp_path, observers=[kill])
    resumed = made()
    assert fit(*resumed, settings, run_dir=tmp_path, resume=True).history == expected.history
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), resumed[0].parameters(), strict=True))


def test_the_estimator_and_every_regulariser_take_spans() -> None:
    X = np.random.default_rng(0).normal(size=(6, 20, 1))
    y = np.where(X[..., 0] > 0, "high", "low")
    tagger = tg.Tagger(hidden_size=8, epochs=8, lr=0.05, bptt_steps=6, activation_slowness=0.1, omega=0.01)
    assert tagger.fit(X, y).score(X, y) > 0.9
    assert tagger.get_params()["bptt_steps"] == 6


def test_what_cannot_be_is_named_and_what_does_nothing_is_noted() -> None:
    with pytest.raises(ConfigError, match=r"5 steps at a time.*run forward.*got bidirectional=True.*recompute=True"):
        train(table(), make_config({**OPTIONS, "bidirectional": True}))
    frame = table().with_columns(kind=pl.col("tag").first().over("row")).drop("tag")
    noted = train(frame, make_config({**OPTIONS, "target": "kind", "task": "classification", "epochs": 1})).notes
    assert any("bptt_steps" in note for note in noted), noted
