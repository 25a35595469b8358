"""Rare digits: how many there are, and that each arm learns by its loss and decides by its scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from trials.images import digits
from trials.tail import RATIO, TASK, rare

NOWHERE = Path()


def test_classes_become_rarer_by_the_same_factor_and_validation_is_that_of_all_digits() -> None:
    counts = np.bincount(rare()["train"][1])
    assert counts[0] / counts[9] >= RATIO * 0.8
    np.testing.assert_allclose(counts[1:] / counts[:-1], RATIO ** (-1 / 9), rtol=0.2)
    assert rare()["valid"] is digits()["valid"]


def test_arms_train_by_their_own_loss_and_are_judged_alike() -> None:
    batch = next(iter(TASK.problem.valid(NOWHERE, 1).batches(0)))
    losses = {}
    for arm in TASK.arms:
        torch.manual_seed(0)
        model = TASK.problem.network(arm.kind, arm.hidden, dict(arm.inside), dict(arm.around))
        losses[arm.name] = model.train().loss(batch, model(batch))[0].item()
        prediction = model.eval()(batch)
        plain = F.cross_entropy(prediction, batch.y, reduction="sum")
        torch.testing.assert_close(model.loss(batch, prediction)[0], plain)
    for name in ("GRU, logit adjustment afterwards", "GRU, balanced sampling"):
        assert losses.pop(name) == losses["GRU"]
    assert len(set(losses.values())) == len(losses)


def test_balanced_sampling_takes_each_digit_as_often_and_each_of_it_before_any_again() -> None:
    arm = TASK.arm("GRU, balanced sampling")
    assert arm.reads is not None
    loader = arm.reads.train(0, NOWHERE, None)
    labels = rare()["train"][1]
    rows = loader.rows(1)
    counts = np.bincount(labels[rows])
    assert (counts == -(-len(labels) // 10)).all()
    assert set(np.flatnonzero(labels == 9)) <= set(rows)
    np.testing.assert_array_equal(rows, loader.rows(1))
    assert not np.array_equal(rows, loader.rows(2))
