"""Estimators for texts: language models and translators behind `fit`."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

from sklearn.utils.validation import check_is_fitted

from tidegate.data.pairs import open_pairs
from tidegate.errors import ConfigError
from tidegate.estimators import Options


@dataclass(eq=False, repr=False)
class _Writer(Options):
    """What both have; the defaults are those of `tidegate.config.TEXT_TASKS`."""

    _: KW_ONLY
    vocabulary_size: int | None = None
    embedding_size: int | None = None
    embedding_dropout: float = 0.0
    tied: bool | None = None
    patience: int | None = 3


@dataclass(eq=False, repr=False)
class LanguageModel(_Writer):
    """The next character, word or subword after each; see `tidegate.writers.TextGenerator` for what it learns.

    X is a list of texts, each a document, or the path of a .txt file, which is one, or a table whose column y holds
    the texts (not needed where only one does). `bptt_steps` tokens are read at a
    time, with the state carried on (truncated backpropagation through time), of lengths that vary unless `vary_bptt`
    is false.
    """

    hidden_size: int = 512
    _: KW_ONLY
    unit: str = "character"
    dropout: float = 0.2
    epochs: int = 15
    batch_size: int = 64
    lr: float = 2e-3
    valid: float = 0.1
    bptt_steps: int = 128
    vary_bptt: bool = True
    label_smoothing: float = 0.0

    def fit(self, X: Any, y: Any = None, *, valid: Any = None) -> Self:
        """Train on texts X; `valid` is texts to validate on instead of a held-out part.

        y names the column of a table; anything else, as pipelines pass it, is ignored.
        """
        self._train(X, valid, (y,) if isinstance(y, str) else (), "generate")
        return self

    def generate(self, prompt: str = "", **options: Any) -> str:
        """Return `prompt` and what follows it; options are those of `TextGenerator.generate`."""
        check_is_fitted(self, "model_")
        return self.model_.generate(prompt, **options)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002 - pipelines pass y
        """Return minus the mean nats a token of texts X."""
        check_is_fitted(self, "model_")
        return -self.model_.evaluate(X)["loss"]


@dataclass(eq=False, repr=False)
class Translator(_Writer):
    """Sequences of words to sequences of words; see `tidegate.writers.TextTranslator` for what it learns.

    X and y are lists of texts, entry by entry, or the paths of text files, line by line; or X is a table and y the name
    of its column of translations (`tg.fit` names the sources too, with `source=`).
    """

    hidden_size: int = 384
    _: KW_ONLY
    unit: str = "subword"
    vocabulary_size: int | None = 4_000
    dropout: float = 0.3
    epochs: int = 12
    batch_size: int = 64
    lr: float = 2e-3
    valid: float = 0.05
    label_smoothing: float = 0.1
    attention: str | None = "general"
    input_feeding: bool = False
    scheduled_sampling: str | None = None
    sampling_pace: float | None = None

    def fit(self, X: Any, y: Any, *, valid: tuple[Any, Any] | None = None) -> Self:
        """Train on sources X and targets y; `valid` is a pair (X, y) to validate on instead of a held-out part."""
        if valid is not None and not (isinstance(valid, tuple) and len(valid) == 2):
            raise ConfigError(
                "fitting Translator", expected="valid to be a pair (X, y)", got=f"{type(valid).__name__}",
                hint="fit(X, y, valid=(sources, targets)); Translator(valid=0.1) for a fraction",
            )  # fmt: skip
        held = None if valid is None else open_pairs(*valid)
        self._train(open_pairs(X, y), held, (), "translate")
        return self

    def translate(self, X: Any, **options: Any) -> list[str]:
        """Return the translations of texts X; options are those of `TextTranslator.translate`."""
        check_is_fitted(self, "model_")
        return self.model_.translate(X, **options)

    predict = translate

    def score(self, X: Any, y: Any) -> float:
        """Return the BLEU, 0 to 100, of the translations of X against y."""
        check_is_fitted(self, "model_")
        return self.model_.evaluate(X, y)["bleu"]
