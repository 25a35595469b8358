"""Weights, margins and priors from counts; what a task makes of them (B3, C13)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tidegate.data.batch import Batch
from tidegate.errors import ConfigError
from tidegate.tasks import losses
from tidegate.tasks.classification import Classification, Tagging
from tidegate.tasks.long_tail import ClassLoss, class_balanced_weights, ldam_margins, log_priors
from tidegate.tasks.network import Architecture, SequenceNetwork

COUNTS, LENGTHS = (500, 60, 7, 1), torch.tensor([4, 4, 2, 1, 0, 3])


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999])
def test_class_balanced_weights_are_the_papers(beta: float) -> None:
    n = np.array(COUNTS, float)
    raw = (1 - beta) / (1 - beta**n)
    expected = raw / raw.sum() * len(n)
    np.testing.assert_allclose(class_balanced_weights(COUNTS, beta).numpy(), expected, rtol=1e-12)
    assert float(class_balanced_weights(COUNTS, beta).sum()) == pytest.approx(4)


def test_weights_go_from_equal_to_inverse_frequency() -> None:
    assert class_balanced_weights(COUNTS, 0.0).tolist() == [1.0] * 4
    inverse = 1 / np.array(COUNTS)
    np.testing.assert_allclose(class_balanced_weights(COUNTS, 1.0), 4 * inverse / inverse.sum())
    nearly = class_balanced_weights(COUNTS, 1 - 1e-9)
    torch.testing.assert_close(nearly, class_balanced_weights(COUNTS, 1.0), rtol=1e-5, atol=0)


def test_margins_are_the_fourth_root_and_the_rarest_has_the_largest() -> None:
    margins = ldam_margins(COUNTS, largest=0.5)
    c = 0.5 * min(COUNTS) ** 0.25
    np.testing.assert_allclose(margins, [c / n**0.25 for n in COUNTS], rtol=1e-12)
    assert float(margins.max()) == 0.5


def test_a_class_without_examples_counts_as_one_with_one() -> None:
    for made in (lambda n: class_balanced_weights(n, 0.9), ldam_margins, log_priors):
        assert torch.equal(made((5, 0)), made((5, 1)))
        assert made((5, 0)).isfinite().all()
    assert log_priors((30, 10)).exp().tolist() == pytest.approx([0.75, 0.25])


def task(**options: float | str | tuple[float, ...]) -> Classification:
    return Classification(target="y", classes=("a", "b", "c", "d"), objective=ClassLoss(counts=COUNTS, **options))  # type: ignore[arg-type]


def batch(target: torch.Tensor) -> Batch:
    empty = torch.zeros(len(target), 1, 0)
    return Batch(empty, empty.long(), torch.ones(len(target)), torch.arange(len(target)), target)


def test_logits_adjusted_afterwards_decide_figures_and_probabilities_and_leave_the_loss_alone() -> None:
    z, y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(40) % 4
    after, plain = task(logit_adjustment_after=1.5), task()
    assert torch.equal(after.loss(batch(y), z)[0], plain.loss(batch(y), z)[0])
    shifted = z - 1.5 * log_priors(COUNTS)
    probability = np.stack([after.decode(z)[f"probability_{c}"] for c in "abcd"], 1)
    np.testing.assert_allclose(probability, shifted.softmax(-1))
    assert after.decode(z)["y"].tolist() == ["abcd"[i] for i in shifted.argmax(-1)]
    found, other = after.metrics(), plain.metrics()
    found.update(batch(y), z), other.update(batch(y), z)
    assert found.compute()["accuracy"] == pytest.approx(float((shifted.argmax(-1) == y).float().mean()))
    assert found.compute() != other.compute()


def test_logits_adjusted_in_training_move_the_loss_alone() -> None:
    z, y = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)).double(), torch.arange(40) % 4
    expected, _ = losses.cross_entropy(z + 0.5 * log_priors(COUNTS), y)
    adjusted = task(logit_adjustment=0.5)
    torch.testing.assert_close(adjusted.loss(batch(y), z)[0], expected)
    np.testing.assert_array_equal(adjusted.decode(z)["probability_a"], task().decode(z)["probability_a"])


def test_the_head_of_ldam_gives_cosines_which_decoding_scales() -> None:
    torch.manual_seed(0)
    made = task(loss="ldam", ldam_scale=9.0)
    network = SequenceNetwork(Architecture(hidden_size=5), made, 3, ()).eval()
    x = torch.randn(6, 4, 3)
    z = network(Batch(x, torch.zeros(6, 4, 0).long(), LENGTHS, torch.arange(6)))
    assert z.abs().max() <= 1
    assert (z[4] == 0).all()
    head = network.head.weight
    features = network.pool(network.recurrent(x, lengths=LENGTHS)[0], LENGTHS)  # type: ignore[misc]
    torch.testing.assert_close(z[0], torch.cosine_similarity(features[0], head))
    np.testing.assert_allclose(
        made.decode(z)["probability_b"], (9.0 * z.double()).softmax(-1)[:, 1].detach(), rtol=1e-6
    )
    total, _ = made.loss(batch(torch.arange(6) % 4), z)
    torch.testing.assert_close(total, losses.ldam(z, torch.arange(6) % 4, ldam_margins(COUNTS), scale=9.0)[0])


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "focal", "weights": (1.0, 2.0, 3.0, 4.0)},
        {"loss": "ldam"},
        {"label_smoothing": 0.1},
        {"logit_adjustment": 1.0},
    ],
)
def test_tags_beyond_a_sequence_change_nothing_and_the_task_survives_json(options: dict[str, str]) -> None:
    made = Tagging(target="y", classes=("a", "b", "c", "d"), objective=ClassLoss(counts=COUNTS, **options))  # type: ignore[arg-type]
    z, y = torch.randn(3, 5, 4), torch.randint(0, 4, (3, 5))
    y[1, 2:], y[2] = -100, -100
    noisy = z.masked_fill((y == -100)[..., None], torch.nan)
    first, second = made.loss(batch(y), z), made.loss(batch(y), noisy)
    assert torch.equal(first[0], second[0])
    assert int(first[1]) == int(second[1]) == 7
    again = Tagging.model_validate_json(made.model_dump_json())
    assert again == made
    assert torch.equal(again.loss(batch(y), z)[0], first[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"counts": (3, 1), "logit_adjustment": 1.0, "logit_adjustment_after": 1.0}, "one of logit_adjustment and"),
        ({"loss": "ldam"}, "counts, how often each class comes, for loss='ldam'; got none"),
        ({"logit_adjustment": 1.0}, "counts, how often each class comes, for logit_adjustment; got none"),
    ],
)
def test_a_loss_that_cannot_be_is_told(options, says) -> None:
    with pytest.raises(ValueError, match=says):
        ClassLoss(**options)
    with pytest.raises(ConfigError, match="a largest margin above 0; got -1"):
        ldam_margins((3, 1), -1.0)
