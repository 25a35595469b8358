"""Every example learns: its figure on real data held out, after less training than it has by itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


def example(name: str) -> ModuleType:
    torch.manual_seed(0)
    return importlib.import_module(name)


def test_every_example_is_listed_and_tried() -> None:
    page, tests = ((path).read_text(encoding="utf-8") for path in (FOLDER / "README.md", Path(__file__)))
    assert len(NAMES) == 8
    for name in NAMES:
        assert f"[`{name}.py`]({name}.py)" in page
        assert f'example("{name}")' in tests


def test_stacked_lstm() -> None:
    assert example("stacked_lstm").main(epochs=5) > 0.9


@pytest.mark.slow
def test_stacked_lstm_in_full() -> None:
    assert example("stacked_lstm").main() > 0.96


@pytest.mark.data
def test_vanilla_rnn(shared_data: Path) -> None:
    """A letter's own frequency takes 3.3 nats, the letter before it 2.5."""
    assert example("vanilla_rnn").main(shared_data / "tinyshakespeare" / "input.txt.gz", epochs=1) < 2.2


@pytest.mark.data
def test_padding_masks(shared_data: Path) -> None:
    """Seven of eight messages are no spam."""
    figures = example("padding_masks").main(shared_data / "sms_spam" / "sms.tsv", epochs=2)
    assert len(figures) == 3
    assert min(figures.values()) > 0.93


@pytest.mark.data
def test_self_attention(shared_data: Path) -> None:
    assert example("self_attention").main(shared_data / "mnist", epochs=2, images=6000) > 0.8


@pytest.mark.data
def test_surnames(shared_data: Path) -> None:
    """A guess, or always the most frequent language, has a mean of 1/18 over the languages."""
    figures = example("surnames").main(shared_data / "names", epochs=3, share=0.3)
    assert set(figures) == {"LSTM", "GRU"}
    assert min(figures.values()) > 0.2


@pytest.mark.data
def test_sentiment(shared_data: Path) -> None:
    assert example("sentiment").main(shared_data / "sst2", epochs=3) > 0.68


@pytest.mark.data
def test_translator(shared_data: Path) -> None:
    figures = example("translator").main(shared_data / "multi30k_de_en", epochs=30, pairs=150, longest=9)
    assert figures["last"] < 0.2 * figures["first"]
    assert figures["gain"] >= 0
    assert figures["right"] >= 30


@pytest.mark.data
def test_forecaster(shared_data: Path) -> None:
    errors = example("forecaster").main(shared_data / "ett" / "ETTh1.csv.gz", epochs=2, every=3)
    assert errors["model"] < 0.97 * min(errors["last value"], errors["day before"])


@pytest.mark.slow
@pytest.mark.data
def test_self_attention_and_surnames_in_full(shared_data: Path) -> None:
    assert example("self_attention").main(shared_data / "mnist", epochs=2) > 0.95
    assert min(example("surnames").main(shared_data / "names").values()) > 0.5
