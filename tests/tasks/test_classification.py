"""Losses and figures of classification, tagging and labels against scikit-learn and torch (B3, C13, D1, D3)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from tidegate.data.batch import IGNORED
from tidegate.tasks.classification import Classification, MultiLabel, Tagging

from .figures import figures


@pytest.mark.parametrize("size", [1, 7, 50])
def test_classification_figures_are_sklearns_whatever_the_batches(size: int) -> None:
    random = torch.Generator().manual_seed(0)
    logits, target = torch.randn(50, 4, generator=random), torch.randint(0, 3, (50,), generator=random)
    found = figures(Classification(target="y", classes=("a", "b", "c", "d")), target, logits, size)
    guess = logits.argmax(1)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(target, guess))
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(target, guess, average="macro", zero_division=0))
    with pytest.warns(UserWarning, match="not in y_true"):
        assert found["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(target, guess))
    assert found["loss"] == pytest.approx(
        oracle.log_loss(target, logits.double().softmax(1), labels=[0, 1, 2, 3]), 1e-5
    )


@pytest.mark.parametrize("size", [2, 6])
def test_tagging_leaves_steps_without_a_tag_out(size: int) -> None:
    random = torch.Generator().manual_seed(1)
    logits, target = torch.randn(6, 5, 3, generator=random), torch.randint(0, 3, (6, 5), generator=random)
    target[0, 3:], target[4] = IGNORED, IGNORED
    real = target != IGNORED
    found = figures(Tagging(target="y", classes=("a", "b", "c")), target, logits, size)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(target[real], logits[real].argmax(1)))
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits[real], target[real])))


def test_labels() -> None:
    random = torch.Generator().manual_seed(2)
    logits, target = torch.randn(30, 3, generator=random), torch.randint(0, 2, (30, 3), generator=random).float()
    found = figures(MultiLabel(targets=("a", "b", "c")), target, logits, 7)
    guess = (logits > 0).numpy()
    assert found["exact_match"] == pytest.approx(oracle.accuracy_score(target.numpy(), guess))
    assert found["accuracy"] == pytest.approx(1 - oracle.hamming_loss(target.numpy(), guess))
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(target.numpy(), guess, average="macro"))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
    assert found["loss"] == pytest.approx(float(expected), 1e-5)


def test_decoding_gives_the_users_own_labels() -> None:
    columns = Classification(target="y", classes=(3, 5)).decode(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    assert columns["y"].tolist() == [5, 3]
    assert np.allclose(columns["probability_3"] + columns["probability_5"], 1)
    labels = MultiLabel(targets=("a", "b")).decode(torch.tensor([[-1.0, 2.0]]))
    assert (labels["a"].tolist(), labels["b"].tolist()) == ([False], [True])
