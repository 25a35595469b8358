"""Tags of long sequences, trained on some steps at a time with the state carried on (B5, D3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import tidegate as tg
from tidegate.config import make_config
from tidegate.data.batch import Batch
from tidegate.data.source import open_source
from tidegate.data.table import load_table
from tidegate.errors import ConfigError
from tidegate.prepare.plan import prepare
from tidegate.run import train
from tidegate.train.evaluation import predictions
from tidegate.train.events import Event, Step
from tidegate.train.loop import LoaderLike, _Trainer, fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings

OPTIONS = {
    "target": "tag", "id": "row", "task": "tagging", "hidden_size": 8, "epochs": 4, "batch_size": 2, "lr": 2e-2,
    "bptt_steps": 5, "device": "cpu", "dropout": 0.0,
}  # fmt: skip


LENGTHS = (23, 11, 17, 23, 4, 22, 12, 21)


def table() -> pl.DataFrame:
    """Return sequences whose tag at every step is what the first step said."""
    random = np.random.default_rng(0)
    first = np.repeat(np.arange(len(LENGTHS)) % 2 * 2.0 - 1, LENGTHS)
    x = random.normal(size=sum(LENGTHS)) * 0.3
    begins = np.cumsum((0, *LENGTHS[:-1]))
    x[begins] = first[begins] * 3
    return pl.DataFrame(
        {"row": np.repeat(np.arange(len(LENGTHS)), LENGTHS), "x": x, "tag": np.where(first > 0, "up", "down")}
    )


class KilledError(Exception):
    pass


def test_what_was_read_long_ago_is_known_in_the_last_span() -> None:
    """Spans of five steps: the last begins twenty steps after the only one that says anything."""
    done = train(table(), make_config({**OPTIONS, "epochs": 30, "valid": 0.25}))
    assert done.prepared.train.steps > 3 * 3
    assert done.prepared.config.bidirectional is False
    assert done.notes == ["layers run forward only, so that 5 steps can be read at a time"]
    late = done.model.predict(table()).filter(pl.col("step") >= 20)
    assert (late["tag"] == table().filter(pl.int_range(pl.len()).over("row") >= 20)["tag"]).all()


def test_whole_sequences_and_spans_are_predicted_alike() -> None:
    done = train(table(), make_config({**OPTIONS, "layers": 2, "cell": "lstm"}))
    network, spans = done.model.network, done.prepared.train
    everything = spans.maker.make(np.arange(len(spans.maker.lengths)))
    with torch.inference_mode():
        whole = network(everything)[0]
    numbers, seen = everything.rows.tolist(), dict.fromkeys(everything.rows.tolist(), 0)
    for batch, prediction in predictions(network, spans):
        for row, length, found in zip(batch.rows.tolist(), batch.lengths.tolist(), prediction, strict=True):
            first = seen[row]
            expected = whole[numbers.index(row), first : first + length]
            torch.testing.assert_close(found[:length], expected, rtol=1e-5, atol=1e-5)
            seen[row] += length
    assert seen == dict(zip(numbers, everything.lengths.tolist(), strict=True))


def test_predicting_and_scoring_read_long_sequences_in_spans_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = train(table(), make_config(OPTIONS)).model
    whole, figures = model.predict(table()), model.evaluate(table())
    widths: list[int] = []
    hook = model.network.columns.register_forward_hook(lambda module, given, out: widths.append(out.shape[1]))
    monkeypatch.setattr("tidegate.model._STEPS", 18)
    monkeypatch.setattr("tidegate.model._BATCH", 3)
    spanned = model.predict(table())
    assert max(widths) == 6
    assert spanned.drop(pl.selectors.float()).equals(whole.drop(pl.selectors.float()))
    np.testing.assert_allclose(spanned.select(pl.selectors.float()), whole.select(pl.selectors.float()), rtol=1e-5)
    assert model.evaluate(table()) == pytest.approx(figures, rel=1e-5)
    hook.remove()
    both = train(table(), make_config({**OPTIONS, "bptt_steps": None})).model
    assert both.predict(table()).height == sum(LENGTHS)


def test_a_skipped_step_of_a_first_span_hands_on_nothing() -> None:
    """What an overflowing step saw is not gone on from, and neither is what the batch before it ended with."""

    class Carrying(torch.nn.Module):
        carries = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.states: list[Any] = []

        def forward(self, batch: Any, carried: Any) -> Any:
            self.states.append(carried)
            return self.weight * batch.dense, (torch.full((len(batch.dense), 1), 7.0),)

        def loss(self, batch: Any, prediction: Any) -> Any:
            return prediction.sum(), torch.tensor(1)

    def batch(rows: int, value: float, *, begins: bool) -> Batch:
        x = torch.full((rows, 1, 1), value)
        return Batch(x, x[..., :0].long(), torch.ones(rows, dtype=torch.int64), torch.arange(rows), begins=begins)

    model = Carrying()
    trainer = _Trainer(model, TrainSettings(precision="fp16", device="cpu"), False, ())
    for rows, value, begins in ((2, 1.0, True), (1, float("inf"), True), (1, 1.0, False), (1, float("inf"), False)):
        trainer.step(batch(rows, value, begins=begins))
    assert model.states[:3] == [None, None, None]
    assert trainer.carry.state is not None
    assert trainer.carry.state[0].shape == (1, 1)


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
    with pytest.raises(ConfigError, match=r"bptt_steps=5 at a time.*got bidirectional=True.*recompute=True"):
        train(table(), make_config({**OPTIONS, "bidirectional": True}))
    with pytest.raises(ConfigError, match="got batch_norm=2"):
        train(table(), make_config({**OPTIONS, "batch_norm": 2}))
    frame = table().with_columns(kind=pl.col("tag").first().over("row")).drop("tag")
    noted = train(frame, make_config({**OPTIONS, "target": "kind", "task": "classification", "epochs": 1})).notes
    assert any("bptt_steps" in note for note in noted), noted
