"""State that is carried from batch to batch survives a kill in the middle of an epoch (B5, B6)."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tidegate.data.streams import Streams
from tidegate.data.subwords import fit_vocabulary
from tidegate.data.text import open_corpus
from tidegate.data.tokens import encode_corpus
from tidegate.tasks.language import LanguageBlueprint
from tidegate.tasks.network import Architecture
from tidegate.train.carry import Carry
from tidegate.train.events import Event, Step
from tidegate.train.loop import fit
from tidegate.train.seeds import seed_everything
from tidegate.train.settings import TrainSettings

TEXT = ["a stitch in time saves nine; " * 20]
SETTINGS = TrainSettings(epochs=3, lr=1e-2, checkpoint_every_seconds=1e-9)


class KilledError(Exception):
    """What stands for a kill."""


def made() -> tuple[nn.Module, Streams]:
    plan = LanguageBlueprint(
        column=None, vocabulary=fit_vocabulary("character", TEXT), embedding_size=8, tied=True,
        architecture=Architecture(cell="lstm", hidden_size=8, layers=2, dropout=0.2),
    )  # fmt: skip
    seed_everything(0)
    return plan.network(), Streams(encode_corpus(open_corpus(TEXT), plan.vocabulary), 3, 16, seed=1)


@pytest.mark.parametrize("at", [(0, 4), (1, 0), (2, 7)])
def test_a_run_killed_between_windows_goes_on_bit_for_bit(tmp_path: Path, at: tuple[int, int]) -> None:
    model, streams = made()
    assert streams.steps > 8
    whole = fit(model, streams, None, SETTINGS, run_dir=tmp_path / "whole")

    def kill(event: Event) -> None:
        if isinstance(event, Step) and (event.epoch, event.step) == at:
            raise KilledError

    killed, streams = made()
    with pytest.raises(KilledError):
        fit(killed, streams, None, SETTINGS, run_dir=tmp_path / "killed", observers=[kill])
    resumed, streams = made()
    result = fit(resumed, streams, None, SETTINGS, run_dir=tmp_path / "killed", resume=True)
    assert result.history == whole.history
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_memory_of_a_step_does_not_grow_with_the_text() -> None:
    """What a window keeps for its gradients is gone when the next one has been read (B5)."""
    model, streams = made()
    carry = Carry(model)
    kept: list[weakref.ref[Tensor]] = []

    def pack(x: Tensor) -> Tensor:
        held = x.detach()  # the tensor itself would hold the graph that holds it
        kept.append(weakref.ref(held))
        return held

    windows = streams.batches()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        prediction = carry(model, next(windows))
    assert sum(each() is not None for each in kept) > 10
    prediction = carry(model, next(windows))
    assert prediction.requires_grad
    assert not [each for each in kept if each() is not None]
