"""Language models: windows with carried state are the whole text, and what repeats is learnt (D5, B5)."""

from __future__ import annotations

import math

import pytest
import torch

from tidegate.data.streams import Streams
from tidegate.data.subwords import fit_vocabulary
from tidegate.data.text import open_corpus
from tidegate.data.tokens import encode_corpus
from tidegate.tasks.language import LanguageBlueprint
from tidegate.tasks.network import Architecture
from tidegate.tasks.tokens import TokenSums, token_loss
from tidegate.train.carry import Carry
from tidegate.train.evaluation import evaluate

TEXT = ["the cat sat on the mat. the dog sat on the log. " * 3, "and so on"]


def blueprint(tied: bool = False, **architecture: object) -> LanguageBlueprint:
    options = {"hidden_size": 6, **architecture}
    return LanguageBlueprint(
        column=None, vocabulary=fit_vocabulary("character", TEXT), architecture=Architecture(**options),  # type: ignore[arg-type]
        embedding_size=6 if tied else 4, tied=tied,
    )  # fmt: skip


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "slstm", "mingru", "rhn"])
def test_windows_with_carried_state_equal_the_whole_text(cell: str) -> None:
    torch.manual_seed(0)
    plan = blueprint(cell=cell, layers=2)
    network = plan.network().double()
    row = encode_corpus(open_corpus(TEXT), plan.vocabulary)
    losses = [evaluate(network, Streams(row, 1, window), "testing")[0]["loss"] for window in (7, 50, row.count)]
    assert max(losses) - min(losses) < 1e-9
    assert 1.5 < losses[0] < 2 * math.log(plan.vocabulary.size)


def test_gradients_end_where_a_window_begins() -> None:
    torch.manual_seed(0)
    plan = blueprint()
    network = plan.network()
    first, second = list(Streams(encode_corpus(open_corpus(TEXT), plan.vocabulary), 1, 80).batches())[:2]
    carry = Carry(network)
    carry(network, first)
    assert carry.state is not None
    assert not any(each.requires_grad for each in carry.state)
    held = tuple(each.clone() for each in carry.state)
    prediction = carry(network, second)
    again, _ = network(second, held)
    assert torch.equal(prediction, again)
    fresh, _ = network(second, None)
    assert not torch.allclose(prediction, fresh)


def test_loss_counts_real_tokens_and_smooths_in_training_only() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 4, 7, dtype=torch.float64), torch.randint(0, 7, (3, 4))
    target[1, 2:] = -100
    real = target != -100
    loss, count = token_loss(logits, target, 0.1)
    log = logits.log_softmax(-1)
    truth = log.gather(-1, target.clamp(min=0)[..., None])[..., 0]
    expected = -(0.9 * truth + 0.1 * log.mean(-1))[real].sum()
    assert torch.allclose(loss, expected)
    assert int(count) == 10
    sums = TokenSums()
    sums.update(type("Batch", (), {"target": target}), logits)
    assert math.isclose(sums.compute()["perplexity"], math.exp(-float(truth[real].mean())))
    network = LanguageBlueprint(**{**blueprint().model_dump(), "label_smoothing": 0.1}).network()
    batch = type("Batch", (), {"target": target})
    training = network.train().loss(batch, logits)[0]  # type: ignore[arg-type]
    assert torch.allclose(training, expected)
    assert float(network.eval().loss(batch, logits)[0]) == pytest.approx(-float(truth[real].sum()))  # type: ignore[arg-type]


def test_tied_weights_are_one() -> None:
    network = blueprint(tied=True).network()
    assert network.decoder.scores.weight is network.decoder.embedding.weight
