"""Translators learn a toy language, whatever the batch, and BLEU is sacreBLEU's (A13, D6)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch

import tidegate as tg
from tidegate.errors import ConfigError
from tidegate.tasks.bleu import bleu
from tidegate.tasks.translation import TranslationNetwork
from tidegate.writers import TextTranslator

WORDS = {
    "ein": "a", "kleiner": "small", "grosser": "large", "Hund": "dog", "Mann": "man", "läuft": "runs",
    "schläft": "sleeps",
}  # fmt: skip


def sentences(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Sentences of a toy language in which the verb comes first in the translation."""
    draw = random.Random(seed)
    sources, targets = [], []
    for _ in range(count):
        words = ["ein", *draw.choices(["kleiner", "grosser"], k=draw.randint(0, 3)), draw.choice(["Hund", "Mann"])]
        verb = draw.choice(["läuft", "schläft"])
        sources.append(" ".join([*words, verb]))
        targets.append(" ".join([WORDS[verb], *(WORDS[word] for word in words)]))
    return sources, targets


@pytest.fixture(scope="module")
def model() -> TextTranslator:
    translator = tg.Translator(cell="gru", hidden_size=48, unit="word", epochs=14, batch_size=16, lr=1e-2, dropout=0.0)
    return translator.fit(*sentences(400, 0)).model_


def test_a_toy_language_is_learnt(model: TextTranslator) -> None:
    sources, targets = sentences(60, 1)
    figures = model.evaluate(sources, targets)
    assert figures["bleu"] > 95
    assert figures["accuracy"] > 0.97


def test_a_translation_does_not_depend_on_its_batch(model: TextTranslator) -> None:
    sources, _ = sentences(9, 2)
    together = model.translate([*sources, ""])
    assert together[-1] == ""
    assert together[:-1] == [model.translate(each)[0] for each in sources]
    with pytest.raises(ConfigError, match="expected beam, a whole number of at least 1; got 0"):
        model.translate(sources, beam=0)
    assert model.translate(sources, beam=1) == [model.translate([each], beam=1)[0] for each in sources]


def test_how_long_a_translation_may_be_depends_on_its_source_alone() -> None:
    sources, targets = sentences(30, 3)
    raw = tg.Translator(hidden_size=8, unit="word", epochs=1, lr=1e-9).fit(sources, targets).model_
    with torch.no_grad():
        raw.network.model.decoder.scores.bias[0] = -20.0  # never ends by itself
    short, long = "ein Hund läuft", " ".join(["kleiner"] * 40)
    for beam in (1, 2):
        assert raw.translate([short, long], beam=beam)[0] == raw.translate([short], beam=beam)[0]


def test_an_alignment_sums_to_one_and_looks_at_the_verb_first(model: TextTranslator) -> None:
    alignment = model.align("ein kleiner Mann schläft")
    assert alignment.source == ["ein", "kleiner", "Mann", "schläft"]
    assert alignment.target == ["sleeps", "a", "small", "man"]
    assert alignment.translation == "sleeps a small man"
    assert alignment.weights.shape == (4, 4)
    assert abs(alignment.weights.sum(1) - 1).max() < 1e-6
    assert alignment.weights[0].argmax() == 3


def test_bleu_is_the_one_of_sacrebleu() -> None:
    guesses = ["The cat sat on the mat today.", "A man (tall) runs, quickly!", "It's 3.5 metres of well-made rope"]
    truths = ["The cat sat on a mat today.", "A tall man runs quickly!", "It is 3.5 metres of well-made rope"]
    assert bleu(guesses, truths) == pytest.approx(sacrebleu.corpus_bleu(guesses, [truths]).score, abs=1e-3)
    assert bleu(truths, truths) == pytest.approx(100)
    assert bleu(["the cat sat on a mat"], ["the dog sat on the mat today"]) == 0


def test_terms_of_outputs_need_whole_targets_and_tokens_one_by_one_whole_embeddings() -> None:
    sources, targets = sentences(20, 3)
    small: dict[str, Any] = {"hidden_size": 8, "unit": "word", "epochs": 1, "input_feeding": True}
    with pytest.raises(ConfigError, match="training a translator with activation_l2; expected a decoder that reads"):
        tg.Translator(activation_l2=1.0, **small).fit(sources, targets)
    with pytest.raises(ConfigError, match="got embedding_dropout"):
        tg.Translator(embedding_dropout=0.1, **small).fit(sources, targets)
    skipping = tg.Translator(layers=2, connection="skip", embedding_size=6, **small).fit(sources, targets)
    assert skipping.model_.network.model.decoder.embedding.weight.shape[1] == 6


@pytest.mark.parametrize(
    "options", [{}, {"input_feeding": True}, {"attention": None}, {"attention": "bahdanau", "layers": 2}]
)
def test_every_kind_of_decoder_trains_and_is_saved(options: dict[str, Any], tmp_path: Path) -> None:
    sources, targets = sentences(30, 3)
    model = tg.Translator(hidden_size=8, unit="word", epochs=1, cell="lstm", **options).fit(sources, targets).model_
    model.save(tmp_path / "model")
    again: Any = tg.load(tmp_path / "model")
    assert again.translate(sources[:5]) == model.translate(sources[:5])


def test_scheduled_sampling_counts_training_steps_and_keeps_the_count() -> None:
    sources, targets = sentences(40, 4)
    fitted = tg.Translator(
        hidden_size=8, unit="word", epochs=2, batch_size=10, scheduled_sampling="linear", valid=0.25, patience=None
    ).fit(sources, targets)
    network: TranslationNetwork = fitted.model_.network
    steps = int(network.get_buffer("steps"))
    assert steps in (3, 6)  # of the epoch that was kept
    assert network.truth is not None
    assert network.truth(3) == 0.5  # by itself the linear schedule ends with training
    assert network.truth(6) == 0
