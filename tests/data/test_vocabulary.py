"""Characters, words and subwords: numbers of texts and back (C5)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tidegate.data.subwords import AnyVocabulary, Subwords, fit_vocabulary
from tidegate.data.vocabulary import END, UNKNOWN, Characters, Words
from tidegate.errors import ConfigError

TEXT = "It's a well-known fact (see below): dogs run, cats don't!\nDogs   run 3.5 miles.\n"


@given(st.text())
def test_characters_are_exact(text: str) -> None:
    vocabulary = Characters.fit([text])
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.size == len(set(text)) + 2


def test_unseen_characters_are_unknown() -> None:
    vocabulary = Characters.fit(["abc"])
    assert vocabulary.encode("xaé").tolist() == [UNKNOWN, 2, UNKNOWN]
    assert vocabulary.decode([END, UNKNOWN, 3]) == "\ufffdb"
    assert Characters.fit([]).encode("ab").tolist() == [UNKNOWN, UNKNOWN]


def test_the_most_frequent_are_kept() -> None:
    assert Characters.fit(["aaabbc"], 4).entries == "ab"
    assert Words.fit(["b b a a c"], 4).entries == ("a", "b")


def test_words_marks_and_lines_are_tokens_and_spaces_come_back() -> None:
    vocabulary = Words.fit([TEXT])
    assert vocabulary.pieces(vocabulary.encode("It's a well-known fact (see")) == [
        "It's", "a", "well-known", "fact", "(", "see",
    ]  # fmt: skip
    assert vocabulary.decode(vocabulary.encode(TEXT)).startswith(
        "It's a well-known fact (see below): dogs run, cats don't!\nDogs run 3.5 miles.\n"
    )
    said = Words.fit(['He said "no, 1,000 times" and "left".'])
    assert said.decode(said.encode('He said "no, 1,000 times" and "left".')) == 'He said "no, 1,000 times" and "left".'
    assert vocabulary.decode(vocabulary.encode("dogs fly")) == "dogs <unk>"


@given(st.lists(st.text(max_size=20), max_size=4))
def test_subwords_are_exact_for_any_text(texts: list[str]) -> None:
    vocabulary = SUBWORDS
    for text in texts:
        tokens = vocabulary.encode(text)
        assert vocabulary.decode(tokens) == text
        assert not len(tokens) or tokens.min() > UNKNOWN


SUBWORDS = Subwords.fit([TEXT] * 5, 300)


def test_subwords_learn_frequent_runs_and_take_special_names_for_text() -> None:
    assert len(SUBWORDS.encode(" dogs run")) < 6
    assert SUBWORDS.size <= 300
    assert SUBWORDS.decode(SUBWORDS.encode("<end> <unk>")) == "<end> <unk>"


@pytest.mark.parametrize("text", ["Dogs run", " two  spaces ", ""])
def test_sentences_begin_as_words_within_a_text_do(text: str) -> None:
    vocabulary = Subwords.fit([TEXT] * 5, 300, sentences=True)
    assert vocabulary.decode(vocabulary.encode(text)).strip(" ") == text.strip(" ")
    assert vocabulary.encode("run").tolist() == vocabulary.encode("dogs run").tolist()[-len(vocabulary.encode("run")) :]


@pytest.mark.parametrize("unit", ["character", "word", "subword"])
def test_every_vocabulary_is_saved_as_json(unit: str) -> None:
    vocabulary = fit_vocabulary(unit, [TEXT], 290)
    adapter: TypeAdapter[AnyVocabulary] = TypeAdapter(AnyVocabulary)
    again = adapter.validate_json(adapter.dump_json(vocabulary))
    assert again.unit == unit
    assert np.array_equal(again.encode(TEXT), vocabulary.encode(TEXT))
    assert again.size == vocabulary.size > int(vocabulary.encode(TEXT).max())


def test_subwords_without_their_library_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *rest: object) -> Iterable[object]:
        if name.startswith("tokenizers"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type,return-value]

    real = __import__
    monkeypatch.setattr("builtins.__import__", missing)
    with pytest.raises(ConfigError, match=r"expected the tokenizers library; .* pip install 'tidegate\[text\]'"):
        Subwords.fit(["a"])
