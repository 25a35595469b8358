"""Tasks on texts: hold out a part, learn the vocabulary of the rest, cut it into batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate.config import TEXT_TASKS, Config
from tidegate.data.loader import Loader
from tidegate.data.pairs import PairMaker, Pairs, is_lines, open_pairs
from tidegate.data.split import split_by_id
from tidegate.data.streams import Streams
from tidegate.data.subwords import fit_vocabulary
from tidegate.data.text import Corpus, open_corpus
from tidegate.data.tokens import encode_corpus
from tidegate.errors import ConfigError
from tidegate.prepare.base import Prepared, architecture
from tidegate.tasks.language import LanguageBlueprint
from tidegate.tasks.translation import TranslationBlueprint

_VALID_ROWS, _EMBEDDING = 8, 128


def prepare_texts(data: Any, config: Config, valid: Any = None) -> Prepared:
    """Prepare for a task of `TEXT_TASKS`."""
    _check(config, valid)
    widths_agree = config.connection != "skip" and config.embedding_size in (None, config.hidden_size)
    tied = config.unit != "character" and widths_agree if config.tied is None else config.tied
    size = config.hidden_size if tied else min(config.hidden_size, _EMBEDDING)
    decided = {"tied": tied, "embedding_size": config.embedding_size or size, "bidirectional": False}
    config = config.model_copy(update=decided)
    return prepare_generation(data, config, valid) if config.task == "generate" else prepare_pairs(data, config, valid)


def _check(config: Config, valid: Any) -> None:
    """Raise `ConfigError` for what texts cannot be trained with."""
    for wrong, expected, got, hint in (
        (config.bidirectional, "layers that run forward: what is written has no future yet", "bidirectional=True",
         "leave it out; a translator's encoder runs both ways in any case"),
        (config.loss is not None, "no loss=, it is cross-entropy", f"loss={config.loss!r}", "leave it out"),
        (len(config.target) > 1, "one target", f"target={config.target}", "the column, or the text file, to write"),
        (config.valid_target is not None and valid is None, "a text file to validate on beside its translations",
         f"valid_target={config.valid_target!r} alone", "valid= the text file of its sources"),
        (config.sampling_pace is not None and config.scheduled_sampling is None, "scheduled_sampling= for its pace",
         f"sampling_pace={config.sampling_pace} alone", 'scheduled_sampling="linear"'),
    ):  # fmt: skip
        if wrong:
            raise ConfigError(f"preparing to {config.task}", expected=expected, got=got, hint=hint)


def prepare_generation(data: Any, config: Config, valid: Any) -> Prepared:
    """Prepare a language model: of one document the last part is held out, of several some at random."""
    column = config.target[0] if config.target else None
    if column is not None and is_lines(data):
        raise ConfigError(
            "preparing to generate", expected="target= for a table, the column of texts", got=f"target={column!r}",
            hint="leave it out: the data are texts themselves",
        )  # fmt: skip
    window = config.bptt_steps or TEXT_TASKS["generate"]["bptt_steps"]
    config = config.model_copy(update={"bptt_steps": window})
    corpus = open_corpus(data, column)
    part, held = _parts(corpus, config) if valid is None else (corpus, open_corpus(valid, column))
    notes = corpus.notes + ([] if valid is None else held.notes)
    vocabulary = fit_vocabulary(config.unit, part.texts(), config.vocabulary_size)
    row, other = encode_corpus(part, vocabulary), encode_corpus(held, vocabulary)
    blueprint = LanguageBlueprint(
        column=column,
        vocabulary=vocabulary,
        architecture=architecture(config),
        **_embedding(config),
        label_smoothing=config.label_smoothing,
        ends=row.documents > 1,
    )
    seed = config.seed if config.vary_bptt else None
    return Prepared(
        blueprint,
        config,
        train=Streams(row, config.batch_size, window, seed),
        valid=Streams(other, _VALID_ROWS, window),
        sizes={
            "train_characters": row.characters,
            "valid_characters": other.characters,
            "train_tokens": row.count - 1,
            "valid_tokens": other.count - 1,
            "vocabulary": vocabulary.size,
        },
        notes=notes,
    )


def prepare_pairs(data: Any, config: Config, valid: Any) -> Prepared:
    """Prepare a translator: pairs are held out at random unless there are some to validate on."""
    target = config.target[0] if config.target else None
    part = open_pairs(data, target, config.source)
    notes = part.notes
    if valid is None:
        chosen, others = split_by_id(len(part.sources), config.valid, config.seed, None)
        part, held = part.only(chosen), part.only(others)
    else:
        held = _held_pairs(valid, config, part)
        notes = notes + held.notes
    source, target_words = (
        fit_vocabulary(config.unit, texts, config.vocabulary_size, sentences=True)
        for texts in (part.sources, part.targets)
    )
    train, other = PairMaker(part, source, target_words), PairMaker(held, source, target_words)
    ratios = [(len(t) - 1) / max(len(s), 1) for s, t in zip(train.sources, train.targets, strict=True)]
    blueprint = TranslationBlueprint(
        columns=part.columns,
        source=source,
        target=target_words,
        architecture=architecture(config),
        **_embedding(config),
        attention=config.attention,
        input_feeding=config.input_feeding,
        label_smoothing=config.label_smoothing,
        scheduled_sampling=config.scheduled_sampling,
        sampling_pace=_pace(config, len(part.sources)),
        longest=float(np.quantile(ratios, 0.99)) + 0.5,
    )
    return Prepared(
        blueprint,
        config,
        train=Loader(train, config.batch_size, config.seed),
        valid=Loader(other, config.batch_size),
        sizes={
            "train_pairs": len(part.sources),
            "valid_pairs": len(held.sources),
            "source_vocabulary": source.size,
            "target_vocabulary": target_words.size,
        },
        notes=notes,
    )


def _embedding(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("embedding_size", "embedding_dropout", "tied")}


def _pace(config: Config, pairs: int) -> float | None:
    """Return the pace of scheduled sampling, if any: unless it is given, the linear one ends with training."""
    if config.scheduled_sampling is None or config.sampling_pace is not None:
        return config.sampling_pace
    if config.scheduled_sampling == "linear":
        return float(config.epochs * -(-pairs // config.batch_size))
    raise ConfigError(
        f"preparing {config.scheduled_sampling} scheduled sampling", expected="sampling_pace=", got="none",
        hint="exponential: 0.9999 a step; inverse_sigmoid: 1000; or linear, which needs none",
    )  # fmt: skip


def _parts(corpus: Corpus, config: Config) -> tuple[Corpus, Corpus]:
    sizes = corpus.sizes()
    if len(sizes) > 1:
        chosen = split_by_id(len(sizes), config.valid, config.seed, None)
        return corpus.only(chosen[0]), corpus.only(chosen[1])
    cut = int(int(sizes.sum()) * (1 - config.valid))
    return corpus.between(0, cut), corpus.between(cut)


def _held_pairs(valid: Any, config: Config, like: Pairs) -> Pairs:
    if isinstance(valid, tuple) and len(valid) == 2:
        return open_pairs(*valid)
    if is_lines(valid) and config.valid_target is None:
        raise ConfigError(
            "preparing to translate", expected="valid_target= beside valid=, the translations to validate on",
            got=f"valid={valid!r}"[:80] + " alone", hint="valid_target= a text file of as many lines",
        )  # fmt: skip
    if config.valid_target is not None:
        return open_pairs(valid, config.valid_target)
    return open_pairs(valid, like.columns[1], like.columns[0])
