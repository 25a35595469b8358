"""Language models and translators: in Python, as estimators and on the command line (D5, D6)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.base import clone

import tidegate as tg
from tidegate.config import TEXT_TASKS, make_config
from tidegate.errors import ConfigError, DataError, InputError
from tidegate.writers import TextGenerator

VERSE = "how much wood would a woodchuck chuck if a woodchuck could chuck wood? "
SMALL: dict[str, Any] = {"hidden_size": 32, "epochs": 12, "batch_size": 4, "bptt_steps": 24, "lr": 2e-2, "dropout": 0.0}


@pytest.fixture(scope="module")
def model() -> TextGenerator:
    return tg.LanguageModel(**SMALL).fit([VERSE * 40]).model_


def test_what_repeats_is_written_on(model: TextGenerator) -> None:
    assert model.generate("how much w", length=40, temperature=0) == (VERSE * 2)[:50]
    figures = model.evaluate([VERSE * 5])
    assert figures["perplexity"] < 1.4
    assert figures["loss"] > 0
    assert figures["bits_per_character"] == pytest.approx(figures["loss"] / 0.6931, rel=0.02)


def test_the_same_seed_writes_the_same(model: TextGenerator, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again: Any = tg.load(tmp_path / "m")
    first = model.generate("a", length=50, temperature=1.5, seed=1)
    assert first == again.generate("a", length=50, temperature=1.5, seed=1)
    assert first != model.generate("a", length=50, temperature=1.5, seed=2)
    assert first.startswith("a")
    assert again.generate("", length=3, seed=0) == model.generate("", length=3, seed=0)
    assert "TextGenerator(" in repr(again)


def test_lists_go_into_one_call_and_what_is_left_out_is_told() -> None:
    sources, targets = ["ein Hund", "eine Katze", "ein Mann", " "] * 3, ["a dog", "a cat", "a man", "x"] * 3
    fitted: Any = tg.fit(
        sources, targets, task="translate", unit="word", hidden_size=8, epochs=1, quiet=True,
        valid=(["ein Hund", ""], ["a dog", "x"]),
    )  # fmt: skip
    assert fitted.notes == [
        "texts: 3 pairs lack a text and are left out", "texts: 1 pairs lack a text and are left out",
    ]  # fmt: skip
    fitted.evaluate(["ein Vogel", ""], ["a bird", "x"])
    assert fitted.notes[0] == "texts: 1 pairs lack a text and are left out"
    assert "1 of 2 tokens" in fitted.notes[1]
    with pytest.raises(DataError, match="expected the targets too; got sources alone"):
        fitted.evaluate(["ein Hund"])
    assert fitted.translate("no such file.de") == fitted.translate(["no such file.de"])
    with pytest.raises(DataError, match="expected a text with a token"):
        fitted.align("")


def test_words_go_on_after_a_space() -> None:
    fitted = tg.LanguageModel(unit="word", **SMALL | {"epochs": 1}).fit([VERSE * 30])
    assert "  " not in fitted.generate("much wood ", length=5, seed=0)


def test_an_unseen_character_is_noted_and_kept(model: TextGenerator) -> None:
    assert model.generate("é", length=2, seed=0).startswith("é")
    assert model.notes == ["1 of 1 tokens were not seen in training"]


@pytest.mark.parametrize("unit", ["character", "word", "subword"])
def test_every_unit_learns_and_is_saved(unit: str, tmp_path: Path) -> None:
    fitted = tg.LanguageModel(unit=unit, **SMALL | {"epochs": 2}, vocabulary_size=300).fit([VERSE * 30, VERSE * 4])
    fitted.model_.save(tmp_path / "m")
    again: Any = tg.load(tmp_path / "m")
    assert again.generate("a wood", length=9, seed=3) == fitted.generate("a wood", length=9, seed=3)
    assert fitted.score([VERSE]) == -again.evaluate([VERSE])["loss"]


def test_numbers_that_cannot_be_and_data_that_is_none(model: TextGenerator) -> None:
    with pytest.raises(ConfigError, match="temperature at least 0"):
        model.generate(temperature=-1)
    with pytest.raises(ConfigError, match="expected length, a whole number of at least 1; got 0"):
        model.generate(length=0)
    with pytest.raises(ConfigError, match=r"predicting with a language model; .* generate\(\"Once\"\)"):
        model.predict([VERSE])
    with pytest.raises(DataError, match="got nothing there"):
        model.evaluate("no such file.txt")
    with pytest.raises(ConfigError, match="expected layers that run forward"):
        tg.fit([VERSE], task="generate", bidirectional=True)
    with pytest.raises(ConfigError, match="preparing exponential scheduled sampling; expected sampling_pace="):
        tg.Translator(scheduled_sampling="exponential", unit="word").fit(["a", "b", "c"], ["x", "y", "z"])
    for options, said in (
        ({"loss": "mse"}, "no loss="),
        ({"target": ["en", "fr"]}, "expected one target"),
        ({"valid_target": "a.en"}, "a text file to validate on beside"),
        ({"sampling_pace": 3.0}, "scheduled_sampling= for its pace"),
    ):
        with pytest.raises(ConfigError, match=said):
            tg.fit(pl.DataFrame({"de": ["a", "b"], "en": ["x", "y"]}), task="translate", **options)
    for wrong in (-1, 1 << 70, "a", True):
        with pytest.raises(ConfigError, match="expected a seed from 0"):
            model.generate("a", seed=wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="reading a prompt, entry 0; expected a text; got NoneType"):
        model.generate(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 2 sequences, or texts"):
        tg.Translator(unit="word").fit(["a"], ["b"])
    for wrong_pair in (["a", "b"], 0.1):
        with pytest.raises(ConfigError, match=r"fitting Translator; expected valid to be a pair \(X, y\)"):
            tg.Translator(unit="word").fit(["a"] * 3, ["b"] * 3, valid=wrong_pair)
    frame = pl.DataFrame({"de": ["a", "b"], "en": ["x", "y"]})
    with pytest.raises(DataError, match=r"reading pairs of texts.*got a table, and DataFrame as the targets"):
        tg.Translator(unit="word").fit(frame[["de"]], frame[["en"]])
    with pytest.raises(ConfigError, match="learning subwords; expected vocabulary_size of at least 258"):
        tg.LanguageModel(unit="subword", vocabulary_size=60).fit([VERSE] * 3)
    with pytest.raises(ConfigError, match="preparing to generate; expected target= for a table"):
        tg.fit([VERSE] * 3, "poem", task="generate")


def test_one_document_has_no_end_and_nothing_unknown_is_written() -> None:
    """Neither was a target of training: a model that knows little would give them a share."""
    options = SMALL | {"epochs": 1, "hidden_size": 4}
    one = tg.LanguageModel(unit="word", **options).fit([VERSE * 30]).model_
    several = tg.LanguageModel(**options).fit([VERSE] * 30).model_
    for seed in range(5):
        written = one.generate("wood", length=40, temperature=3.0, seed=seed)
        assert "<unk>" not in written
        assert len(one.blueprint.vocabulary.encode(written)) == 41
    assert "\ufffd" not in "".join(several.generate("a", length=40, temperature=5.0, seed=seed) for seed in range(9))
    assert min(len(several.generate("a", length=80, temperature=3.0, seed=seed)) for seed in range(9)) < 81


def test_a_table_s_column_and_missing_texts() -> None:
    frame = pl.DataFrame({"poem": [VERSE, None, VERSE] * 3, "by": ["x", "y", "z"] * 3})
    fitted = tg.LanguageModel(**SMALL | {"epochs": 1}).fit(frame, "poem")
    assert fitted.model_.blueprint.column == "poem"
    assert fitted.model_.notes == ["DataFrame: 3 texts are missing and left out"]
    listed = tg.LanguageModel(**SMALL | {"epochs": 1}).fit([VERSE, None, float("nan")] * 3).model_
    assert listed.notes == ["texts: 6 texts are missing and left out"]
    pairs = tg.Translator(unit="word", hidden_size=8, epochs=1).fit(["a", None, "b"] * 2, ["x", "y", float("nan")] * 2)
    assert pairs.model_.notes == ["texts: 4 pairs lack a text and are left out"]


@pytest.mark.parametrize(("task", "kind"), [("generate", tg.LanguageModel), ("translate", tg.Translator)])
def test_estimators_have_the_defaults_of_their_task(task: str, kind: Any) -> None:
    estimator = kind()
    assert clone(estimator).get_params() == estimator.get_params()
    options = {k: v for k, v in estimator.get_params().items() if k != "verbose"}
    assert make_config({**options, "task": task}) == make_config({"task": task})
    assert TEXT_TASKS[task].items() <= options.items()


Tidegate = Callable[..., tuple[int, str, str]]
FEW = ["--hidden-size", "8", "--epochs", "2", "--batch-size", "4"]


def test_a_text_file_from_training_to_writing(tidegate: Tidegate) -> None:
    Path("verse.txt").write_text(VERSE * 20)
    code, out, said = tidegate("train", "verse.txt", "--task", "generate", "--out", "other", *FEW)
    assert code == 0
    assert "note:" not in said
    code, out, _ = tidegate("train", "verse.txt", "--task", "generate", "--out", "run", *FEW, "--json")
    assert code == 0
    assert {"run", "loss", "perplexity", "accuracy"} == json.loads(out).keys()
    code, out, said = tidegate("generate", "run", "--prompt", "how", "--length", "12", "--seed", "1")
    assert code == 0
    assert out.startswith("how")
    assert tidegate("generate", "run", "--prompt", "how", "--length", "12", "--seed", "1")[1] == out
    code, out, _ = tidegate("evaluate", "run", "verse.txt", "--json")
    assert {"loss", "perplexity", "accuracy", "bits_per_character"} == json.loads(out).keys()
    assert "What it writes" in Path("run/report.html").read_text()
    assert tidegate("train", "--resume", "run", "--quiet")[0] == 0
    code, _, said = tidegate("translate", "run", "verse.txt")
    assert code == 2
    assert "expected a model trained with --task translate; got TextGenerator" in said


def test_parallel_files_from_training_to_translations(tidegate: Tidegate, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.de").write_text("ein Hund\neine Katze\nein Mann\nzwei Hunde\n" * 5)
    Path("a.en").write_text("a dog\na cat\na man\ntwo dogs\n" * 5)
    words = ["train", "a.de", "--target", "a.en", "--task", "translate", "--set", "unit=word", "--out", "run"]
    code, _, said = tidegate(*words, *FEW, "--valid", "a.de", "--set", "valid_target=a.en")
    assert code == 0, said
    code, out, _ = tidegate("translate", "run", "a.de", "--alignment", "page.html", "--beam", "2")
    assert code == 0
    assert len(out.splitlines()) == 20
    assert "Attention" in Path("page.html").read_text()
    assert tidegate("translate", "run", "a.de", "-o", "out.en", "--beam", "2")[0] == 0
    assert Path("out.en").read_text() == out
    monkeypatch.setattr("sys.stdin", io.StringIO("ein Hund\n\nzwei Hunde"))
    code, said, _ = tidegate("translate", "run", "-", "--beam", "2")
    assert said.split("\n") == [out.split("\n")[0], "", out.split("\n")[3], ""]
    with pytest.raises(ConfigError, match=r"drawing alignments into no/page.html.*no folder no"):
        tg.load("run").align("ein Hund").save("no/page.html")  # type: ignore[union-attr]
    code, _, said = tidegate("translate", "run", "a.de", "-o", "a.de")
    assert code == 2
    assert "expected another file than the data" in said
    assert tidegate("translate", "run", "a.de", "--alignment", "no/page.html")[0] == 2
    code, out, _ = tidegate("evaluate", "run", "a.de", "--target", "a.en", "--json")
    assert {"loss", "perplexity", "accuracy", "bleu"} == json.loads(out).keys()
    page = Path("run/report.html").read_text()
    assert "Translation of source to target" in page
    assert "zwei Hunde" in page
    assert tidegate("train", "--resume", "run", "--target", "a.en", "--quiet")[0] == 0
    Path("a.en").write_text("changed\n" * 20)
    code, _, said = tidegate("train", "--resume", "run")
    assert code == 2
    assert "a.en as it was when the run started" in said


def test_two_columns_of_a_table(tidegate: Tidegate) -> None:
    pairs = {"de": ["ein Hund", "eine Katze", "ein Mann", None], "en": ["a dog", "a cat", "a man", "x"]}
    pl.DataFrame(pairs).write_csv("p.csv")
    words = ["train", "p.csv", "--target", "en", "--task", "translate", "--set", "unit=word", "--out", "run"]
    code, _, said = tidegate(*words, *FEW)
    assert code == 0
    assert "p.csv: 1 pairs lack a text and are left out" in said
    assert tidegate("predict", "run", "p.csv", "-o", "o.csv")[0] == 0
    assert pl.read_csv("o.csv").columns == ["de", "en"]
    assert pl.read_csv("o.csv").height == 4


def test_options_without_effect_and_missing_files_are_told(tidegate: Tidegate) -> None:
    Path("verse.txt").write_text(VERSE * 5)
    words = ["train", "verse.txt", "--task", "generate", *FEW, "--set", "input_feeding=true", "--horizon", "3"]
    said = tidegate(*words, "--out", "run")[2]
    assert "note: horizon has no effect on generate" in said
    assert "note: input_feeding has no effect on generate" in said
    code, _, said = tidegate("train", "verse.txt", "--task", "translate", "--target", "no.en", "--out", "other")
    assert code == 2
    assert "no.en'; expected a file; got nothing there" in said
    assert not Path("other").exists()
    code, _, said = tidegate("train", "verse.txt", "--task", "translate", "--out", "other", "--set", "unit=word")
    assert code == 2
    assert "expected the targets too; got sources alone" in said
    assert not Path("other").exists()
