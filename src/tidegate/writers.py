"""Trained models that write text: language models and translators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from tidegate.data.loader import Loader
from tidegate.data.pairs import PairMaker, is_lines, open_pairs, open_sources, padded
from tidegate.data.streams import Streams
from tidegate.data.text import check_texts, open_corpus
from tidegate.data.tokens import encode_corpus
from tidegate.data.vocabulary import END, UNKNOWN
from tidegate.errors import ConfigError, DataError
from tidegate.nn.beam import Penalties
from tidegate.nn.decode import Draw, Written, is_count, write
from tidegate.nn.decoder import Decoding
from tidegate.tasks.bleu import bleu
from tidegate.tasks.language import LanguageBlueprint, LanguageNetwork
from tidegate.tasks.translation import TranslationBlueprint, TranslationNetwork
from tidegate.train.evaluation import evaluate
from tidegate.trained import TrainedModel

_WINDOW, _BATCH = 256, 64


class TextGenerator(TrainedModel[LanguageBlueprint]):
    """A trained language model: `generate` writes on from a prompt, `evaluate` scores a text."""

    network: LanguageNetwork

    def __repr__(self) -> str:
        vocabulary = self.blueprint.vocabulary
        return f"TextGenerator({vocabulary.size:,} {vocabulary.unit}s: {self._described()})"

    def generate(
        self,
        prompt: str = "",
        *,
        length: int = 200,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> str:
        """Return `prompt` and up to `length` tokens that follow it, drawn one after the other.

        Writing ends early where a document would, if training had several to learn that from, and never has an unknown
        token. `temperature` 0 takes the likeliest token each time; see `nn.Draw`
        for the others. The same `seed` gives the same text. Raises `ConfigError` for numbers that cannot be.
        """
        _check_count("length", length)
        draw = Draw(temperature, top_k, top_p)
        generator = None if seed is None else torch.Generator().manual_seed(_seed(seed))
        (prompt,) = check_texts([prompt], "reading a prompt")
        vocabulary, decoder = self.blueprint.vocabulary, self.network.decoder
        read = [END, *vocabulary.encode(prompt).tolist()]
        self.notes = _unknown(read.count(UNKNOWN), len(read) - 1)
        tokens = torch.tensor([read])
        self.network.eval()
        with torch.inference_mode():
            before = decoder(tokens[:, :-1])[2] if len(read) > 1 else Decoding()
            written = write(
                decoder, tokens[:, -1], before, steps=length, end=END, never=self.blueprint.never, draw=draw,
                generator=generator,
            )  # fmt: skip
        head, whole = vocabulary.decode(read), vocabulary.decode([*read, *_rows(written)[0]])
        rest = whole[len(head) :]
        # Words lose the space at a prompt's end, and bring one of their own.
        return prompt + (rest.removeprefix(" ") if prompt.endswith(" ") and not head.endswith(" ") else rest)

    def evaluate(self, data: Any, *, start: Any = None) -> dict[str, float]:
        """Return the figures of a text, read from its first token to its last as one stream.

        `loss` is nats a token, `bits_per_character` compares models of different vocabularies. `data` is a .txt file,
        a list of texts, or a table with a column of texts. Raises `DataError` where it is none.
        """
        _no_start(start)
        column = self.blueprint.column
        corpus = open_corpus(data, column)
        row = encode_corpus(corpus, self.blueprint.vocabulary)
        self.notes = corpus.notes + _unknown(row.unknown, row.count - 1)
        figures, _ = evaluate(self.network, Streams(row, 1, _WINDOW), "evaluating a text")
        nats = figures["loss"] * (row.count - 1)
        return {**figures, "bits_per_character": nats / math.log(2) / row.characters}

    def predict(self, data: Any) -> pl.DataFrame:
        """Refuse: a language model writes on from a prompt."""
        raise ConfigError(
            "predicting with a language model", expected="a prompt to write on from", got=f"data {data!r}"[:80],
            hint='generate("Once"), or tidegate generate RUN --prompt "Once"',
        )  # fmt: skip


class Alignment(NamedTuple):
    """What each token of a translation looked at: weights [T, S] over the source's tokens, each row summing to 1.

    `text` and `translation` are what the tokens spell.
    """

    source: list[str]
    target: list[str]
    weights: np.ndarray
    text: str
    translation: str

    def save(self, path: str | Path) -> None:
        """Draw the weights as a picture on an HTML page."""
        from tidegate.report.alignment import write_alignments

        write_alignments(Path(path), [self])


class TextTranslator(TrainedModel[TranslationBlueprint]):
    """A trained translator: `translate` writes the target of each source, `evaluate` scores pairs."""

    network: TranslationNetwork

    def __repr__(self) -> str:
        source, target = self.blueprint.columns
        return f"TextTranslator({source} to {target}: {self._described()})"

    def translate(self, texts: Any, *, beam: int = 5, length_penalty: float = 1.0, coverage: float = 0.0) -> list[str]:
        """Return the translations of a text, a list of texts, the lines of a text file (a `Path`), or a table's column.

        `beam` hypotheses are kept at each step; 1 takes the likeliest token each time. `length_penalty` and `coverage`
        are those of `nn.Penalties`. A text without a token is translated as "". Raises `DataError` for what is no
        text, `ConfigError` for numbers that cannot be.
        """
        texts = [texts] if isinstance(texts, str) else texts
        sources = self._encoded(open_sources(texts, self.blueprint.columns[0]))
        out = [""] * len(sources)
        # Together go sources of one length: how long a translation may be depends on its own source alone.
        order = sorted((i for i, tokens in enumerate(sources) if len(tokens)), key=lambda i: len(sources[i]))
        for _, alike in groupby(order, key=lambda i: len(sources[i])):
            while chosen := list(islice(alike, _BATCH)):
                written = self._written([sources[i] for i in chosen], beam, Penalties(length_penalty, coverage))
                for i, tokens in zip(chosen, _rows(written), strict=True):
                    out[i] = self.blueprint.target.decode(tokens)
        return out

    def predict(self, data: Any) -> pl.DataFrame:
        """Return each source beside its translation."""
        sources = open_sources(data, self.blueprint.columns[0])
        return pl.DataFrame(dict(zip(self.blueprint.columns, (sources, self.translate(sources)), strict=True)))

    def evaluate(self, data: Any, target: Any = None, *, start: Any = None, beam: int = 5) -> dict[str, float]:
        """Return the figures of pairs: `loss` in nats a token given the truth before it, and BLEU of translations.

        `data` and `target` are what `tg.fit` took: a table, or texts and their translations line by line. BLEU is
        sacreBLEU's, 0 to 100, see `tasks.bleu`.
        """
        _no_start(start)
        plan = self.blueprint
        named = plan.columns[1] if target is None and not is_lines(data) else target
        pairs = open_pairs(data, named, plan.columns[0])
        loader = Loader(PairMaker(pairs, plan.source, plan.target), _BATCH)
        figures, _ = evaluate(self.network, loader, f"evaluating on {pairs.name}")
        translations = self.translate(pairs.sources, beam=beam)
        self.notes = pairs.notes + self.notes
        return {**figures, "bleu": bleu(translations, pairs.targets)}

    def align(self, text: str, *, beam: int = 5, length_penalty: float = 1.0, coverage: float = 0.0) -> Alignment:
        """Translate a text, as `translate` does, and return what each token of the translation attended to.

        Raises `ConfigError` where the translator has no attention, `DataError` for a text without a token.
        """
        self.check_attention()
        plan, source = self.blueprint, self._encoded(check_texts([text], "reading a text"))[0]
        if not len(source):
            raise DataError("aligning a translation", expected="a text with a token", got=repr(text), hint="a word")
        written = self._written([source], beam, Penalties(length_penalty, coverage))
        assert written.weights is not None
        tokens = _rows(written)[0]
        return Alignment(
            plan.source.pieces(source), plan.target.pieces(tokens), written.weights[0].double().numpy(),
            text, plan.target.decode(tokens),
        )  # fmt: skip

    def check_attention(self) -> None:
        """Raise `ConfigError` unless the translator has attention."""
        if self.blueprint.attention is None:
            raise ConfigError(
                "aligning a translation", expected="a translator with attention", got="attention=None",
                hint='train with attention="general"',
            )  # fmt: skip

    def draw(self, path: str | Path, texts: Sequence[str], **options: Any) -> None:
        """Draw the alignments of the first 20 texts on an HTML page; options are those of `align`."""
        from tidegate.report.alignment import MOST, write_alignments

        known = [text for text in texts if len(self.blueprint.source.encode(text))]
        write_alignments(Path(path), [self.align(text, **options) for text in known[:MOST]])

    def _encoded(self, texts: Sequence[str]) -> list[np.ndarray]:
        encoded = [self.blueprint.source.encode(text) for text in texts]
        self.notes = _unknown(sum(int((each == UNKNOWN).sum()) for each in encoded), sum(map(len, encoded)))
        return encoded

    def _written(self, sources: Sequence[np.ndarray], beam: int, penalties: Penalties) -> Written:
        _check_count("beam", beam)
        source, lengths = padded(sources, END)
        steps = self.blueprint.most_steps(source.shape[1])
        model = self.network.model
        if beam == 1:
            return model.write(source, steps=steps, lengths=lengths, never=(UNKNOWN,))
        return model.search(
            source, steps=steps, lengths=lengths, width=beam, never=(UNKNOWN,), penalties=penalties
        ).best()


def _rows(written: Written) -> list[list[int]]:
    return [row[:length] for row, length in zip(written.tokens.tolist(), written.lengths.tolist(), strict=True)]


def _unknown(count: int, tokens: int) -> list[str]:
    return [f"{count} of {tokens} tokens were not seen in training"] if count else []


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 63:
        raise ConfigError("writing text", expected="a seed from 0 to 2⁶³ − 1, or None", got=repr(seed), hint="seed=0")
    return seed


def _check_count(name: str, value: Any) -> None:
    if not is_count(value):
        raise ConfigError(
            "writing text", expected=f"{name}, a whole number of at least 1", got=repr(value), hint=f"{name}=5"
        )


def _no_start(start: Any) -> None:
    if start is not None:
        raise ConfigError("evaluating a text", expected="no start=: it is for forecasts", got=repr(start))
