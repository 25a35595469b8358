"""Subwords that are learnt from the text: byte-pair encoding, by Hugging Face's tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field

from tidegate.data.vocabulary import END, Characters, Vocabulary, Words
from tidegate.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SIZE, _LEAST = 8_000, 258


class Subwords(Vocabulary):
    """Frequent runs of bytes are tokens, so that nothing is unknown and decoding is exact.

    Byte-pair encoding within words, over bytes (Sennrich, Haddow & Birch 2016, 1508.07909, section 3.2; over bytes as
    in Radford et al. 2019, section 2.2). `model` is what the tokenizers library writes. With `sentences`, each text
    begins as a word inside a text would, and is decoded without a space at its beginning.
    """

    unit: Literal["subword"] = "subword"
    model: str
    sentences: bool

    @classmethod
    def fit(cls, texts: Iterable[str], size: int | None = None, *, sentences: bool = False) -> Self:
        """Learn at most `size` tokens, 8,000 unless given; raise `ConfigError` for fewer than bytes and marks take."""
        if size is not None and size < _LEAST:
            raise ConfigError(
                "learning subwords", expected=f"vocabulary_size of at least {_LEAST}: every byte and two more tokens",
                got=str(size), hint="vocabulary_size=1000, or unit=\"character\"",
            )  # fmt: skip
        tokenizers = _library()
        learnt = tokenizers.Tokenizer(tokenizers.models.BPE())
        learnt.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=sentences)
        learnt.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=_SIZE if size is None else size,
            special_tokens=["<end>", "<unk>"],
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        learnt.train_from_iterator(texts, trainer)
        return cls(model=learnt.to_str(), sentences=sentences)

    @property
    def size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, tokens: Iterable[int]) -> str:
        text = str(self._tokenizer.decode([int(token) for token in tokens if token != END], skip_special_tokens=False))
        return text.removeprefix(" ") if self.sentences else text

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [
            "<end>" if token == END else str(self._tokenizer.decode([int(token)], skip_special_tokens=False))
            for token in tokens
        ]

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        learnt = _library().Tokenizer.from_str(self.model)
        learnt.encode_special_tokens = True  # "<end>" in a text is text
        return learnt


AnyVocabulary = Annotated[Characters | Words | Subwords, Field(discriminator="unit")]


def fit_vocabulary(
    unit: str, texts: Iterable[str], size: int | None = None, *, sentences: bool = False
) -> AnyVocabulary:
    """Learn the vocabulary of a `unit`: character, word or subword."""
    if unit == "subword":
        return Subwords.fit(texts, size, sentences=sentences)
    return Words.fit(texts, size) if unit == "word" else Characters.fit(texts, size)


def _library() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.trainers
    except ImportError:
        raise ConfigError(
            "splitting text into subwords", expected="the tokenizers library", got="an environment without it",
            hint="pip install 'tidegate[text]', or unit=\"word\"",
        ) from None  # fmt: skip
    return tokenizers
