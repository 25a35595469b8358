"""A13: what is written is what the definitions say: brute force, drawn frequencies, one path against another."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from tidegate.cells import CELLS, GRU, LSTM, ConvGRU
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Attention, Decoder, Decoding, Draw, Penalties, Recurrent, Seq2Seq, beam_search, write

TOKENS, BEGIN, END, STEPS = 4, 0, 1, 4
SOURCE = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([5, 3])


def model(cell: str = "gru", *, feeding: bool = False, attention: bool = True, peaked: float = 3.0) -> Seq2Seq:
    torch.manual_seed(3)
    encoder = Recurrent(CELLS[cell](3, 4), bidirectional=True)
    layer = Recurrent(CELLS[cell](6 + (5 if feeding else 0), 5), layers=1 if feeding else 2)
    decoder = Decoder(
        layer, TOKENS, attention=Attention(5, encoder.output_size) if attention else None, input_feeding=feeding
    )
    with torch.no_grad():
        decoder.scores.weight.mul_(peaked)
    return Seq2Seq(encoder, decoder, begin=BEGIN, end=END).eval()


def scored(model: Seq2Seq, row: int, tokens: tuple[int, ...], penalties: Penalties) -> tuple[float, float]:
    """The log-probability of a target with its end, and its score, from one teacher-forced run."""
    target = torch.tensor([[*tokens, END]])
    logits, weights = model(SOURCE[row : row + 1], target, lengths=LENGTHS[row : row + 1])
    total = float(logits[0].log_softmax(-1).gather(-1, target[0, :, None]).sum())
    score = total / ((5 + target.shape[1]) / 6) ** penalties.length
    if weights is not None:
        covered = weights[0].sum(0)[: LENGTHS[row]]
        score += penalties.coverage * float(covered.clamp(max=1).log().sum())
    return score, total


@torch.no_grad()
@pytest.mark.parametrize("penalties", [Penalties(), Penalties(length=0.8), Penalties(length=0.6, coverage=0.4)])
@pytest.mark.parametrize(
    ("cell", "feeding", "attention"), [("gru", False, True), ("lstm", True, True), ("slstm", False, False)]
)
def test_a_wide_beam_is_brute_force(cell: str, feeding: bool, attention: bool, penalties: Penalties) -> None:
    made = model(cell, feeding=feeding, attention=attention)
    found = made.search(SOURCE, lengths=LENGTHS, steps=STEPS, width=40, penalties=penalties, count=5)
    others = [token for token in range(TOKENS) if token != END]
    for row in range(2):
        every = [
            (*scored(made, row, tokens, penalties), tokens)
            for count in range(STEPS)
            for tokens in itertools.product(others, repeat=count)
        ]
        best = sorted(every, reverse=True)[:5]
        for place, (score, total, tokens) in enumerate(best):
            length = int(found.lengths[row, place])
            assert tuple(found.tokens[row, place, :length].tolist()) == tokens
            assert float(found.scores[row, place]) == pytest.approx(score, abs=1e-4)
            assert float(found.log_probabilities[row, place]) == pytest.approx(total, abs=1e-4)
        first = made.search(SOURCE, lengths=LENGTHS, steps=STEPS, width=40, penalties=penalties).best()
        assert tuple(first.tokens[row, : first.lengths[row]].tolist()) == best[0][2]


@torch.no_grad()
def test_a_wider_beam_finds_no_worse_and_greedy_is_a_beam_of_one() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        made = model(peaked=float(1 + seed))
        greedy = made.write(SOURCE, lengths=LENGTHS, steps=6)
        best = [made.search(SOURCE, lengths=LENGTHS, steps=6, width=w).scores[:, 0] for w in (1, 2, 30)]
        assert (best[2] >= best[1] - 1e-5).all()
        ended = greedy.lengths < 6
        assert (best[2] >= greedy.log_probabilities - 1e-5)[ended].all()


@torch.no_grad()
def test_rows_do_not_depend_on_each_other() -> None:
    made = model(feeding=True)
    together = made.search(SOURCE, lengths=LENGTHS, steps=5, width=3)
    for row in range(2):
        alone = made.search(SOURCE[row : row + 1, : LENGTHS[row]], steps=5, width=3)
        torch.testing.assert_close(alone.scores[0], together.scores[row])
        length = int(alone.lengths[0, 0])
        assert torch.equal(alone.tokens[0, 0, :length], together.tokens[row, 0, :length])
        assert alone.weights is not None
        assert together.weights is not None
        torch.testing.assert_close(alone.weights[0, 0, :length], together.weights[row, 0, :length, : LENGTHS[row]])


@torch.no_grad()
def test_what_is_never_written_has_no_share_of_the_probabilities() -> None:
    made = model()
    never = 2
    same = model()
    same.decoder.scores.bias[never] = -1e9
    for width in (1, 3):
        found = made.search(SOURCE, lengths=LENGTHS, steps=STEPS, width=width, never=(never,)).best()
        expected = same.search(SOURCE, lengths=LENGTHS, steps=STEPS, width=width).best()
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probabilities, expected.log_probabilities)
    written = made.write(SOURCE, lengths=LENGTHS, steps=9, never=(never, END), draw=Draw(temperature=5.0))
    assert written.lengths.tolist() == [9, 9]
    assert not (written.tokens == never).any()
    listed = made.write(SOURCE, lengths=LENGTHS, steps=6, never=[never])
    for same_tokens in (iter([never]), np.array([never]), {never}):
        again = made.write(SOURCE, lengths=LENGTHS, steps=6, never=same_tokens)  # type: ignore[arg-type]
        assert torch.equal(again.tokens, listed.tokens)
    for wrong in ((TOKENS,), range(TOKENS), ("a",), 2.5, [True], [-1]):
        with pytest.raises(ConfigError, match="never to name some of the decoder's 4 tokens, and to leave one"):
            made.write(SOURCE, lengths=LENGTHS, steps=6, never=wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"expected an end that may be written; got end=1, never=\[1\]"):
        made.search(SOURCE, lengths=LENGTHS, steps=STEPS, width=2, never=(END,))


@torch.no_grad()
def test_greedy_takes_the_likeliest_of_each_step() -> None:
    made = model(feeding=True)
    written = made.write(SOURCE, lengths=LENGTHS, steps=6)
    assert written.weights is not None
    for row in range(2):
        length = int(written.lengths[row])
        tokens = written.tokens[row, :length]
        target = torch.cat([tokens, torch.tensor([END])])[None]
        logits, weights = made(SOURCE[row : row + 1], target, lengths=LENGTHS[row : row + 1])
        assert torch.equal(logits[0, :length].argmax(-1), tokens)
        if length < 6:
            assert int(logits[0, length].argmax()) == END
        assert weights is not None
        torch.testing.assert_close(written.weights[row, :length], weights[0, :length])
        assert (written.tokens[row, length:] == END).all()


def test_what_is_drawn_has_its_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    every = logits.softmax(-1)
    for draw, expected in (
        (Draw(), every),
        (Draw(temperature=0.5), (logits / 0.5).softmax(-1)),
        (Draw(top_k=2), torch.tensor([*every[:2] / every[:2].sum(), 0, 0, 0])),
        (Draw(top_p=float(every[0]) - 0.01), torch.tensor([1.0, 0, 0, 0, 0])),
        (Draw(top_p=float(every[0]) + 0.01), torch.tensor([*every[:2] / every[:2].sum(), 0, 0, 0])),
    ):
        torch.testing.assert_close(draw.probabilities(logits[None])[0], expected)
        turned = torch.tensor([3, 0, 4, 1, 2])
        torch.testing.assert_close(draw.probabilities(logits[turned][None])[0], expected[turned])
        drawn = draw(logits.expand(20000, -1), torch.Generator().manual_seed(1))
        counts = torch.bincount(drawn, minlength=5) / 20000
        torch.testing.assert_close(counts, expected, atol=0.015, rtol=0)
    assert int(Draw(temperature=0)(logits[None])) == 0


@torch.no_grad()
def test_drawing_repeats_with_its_generator() -> None:
    made = model(peaked=1.0)
    one, two, other = (
        made.write(SOURCE, steps=8, draw=Draw(), generator=torch.Generator().manual_seed(seed)).tokens
        for seed in (5, 5, 6)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@torch.no_grad()
def test_a_decoder_without_a_source_is_a_language_model() -> None:
    torch.manual_seed(0)
    decoder = Decoder(Recurrent(LSTM(6, 6), layers=2), 5, tied=True)
    assert decoder.scores.weight is decoder.embedding.weight
    first = torch.tensor([0, 3])
    written = write(decoder, first, Decoding(None), steps=4)
    assert written.lengths.tolist() == [4, 4]
    read = torch.cat([first[:, None], written.tokens[:, :-1]], 1)
    logits, weights, _ = decoder(read)
    assert weights is None
    assert torch.equal(logits.argmax(-1), written.tokens)
    scores = beam_search(decoder, first, Decoding(None), width=3, steps=3, end=4).scores
    assert scores.shape == (2, 1)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ConfigError, match="temperature at least 0; got -1"):
        Draw(temperature=-1)
    with pytest.raises(ConfigError, match=r"top_p above 0, at most 1, or None; got 1\.5"):
        Draw(top_p=1.5)
    with pytest.raises(ConfigError, match=r"a length penalty of at least 0; got -0\.5"):
        Penalties(length=-0.5)
    made = model()
    with pytest.raises(ConfigError, match="count from 1 to width; got width=2, steps=3, count=3"):
        made.search(SOURCE, steps=3, width=2, count=3)
    with pytest.raises(ShapeError, match="expected a memory in the Decoding; got none"):
        made.decoder(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"tokens \[B, T\], integers; got shape \[2, 3\], torch.float32"):
        made.decoder(torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="begin to be one of the decoder's 4 tokens; got 9"):
        Seq2Seq(made.encoder, made.decoder, begin=9, end=1)
    with pytest.raises(ConfigError, match="a layer whose cells read vectors; got ConvGRU, which reads frames"):
        Seq2Seq(Recurrent(ConvGRU(3, 4, size=(2, 2))), made.decoder, begin=0, end=1)
    with pytest.raises(ConfigError, match="building a decoder; expected a layer whose cells read vectors"):
        Decoder(Recurrent(ConvGRU(3, 4, size=(2, 2))), 3)
    with pytest.raises(ShapeError, match=r"a row for each of the 2 sources; got shape \[3, 4\]"):
        made(SOURCE, torch.zeros(3, 4, dtype=torch.int64))
    with pytest.raises(ConfigError, match="a layer that runs forward only"):
        Decoder(Recurrent(GRU(4, 4), bidirectional=True), 3)
    with pytest.raises(ConfigError, match="an attention, whose result is fed"):
        Decoder(Recurrent(GRU(9, 4)), 3, input_feeding=True)
    with pytest.raises(ConfigError, match="an input_size above 4"):
        Decoder(Recurrent(GRU(4, 4)), 3, attention=Attention(4, 4), input_feeding=True)
    with pytest.raises(ConfigError, match="tied=True with embeddings as wide as the layer's output, 4; got 3"):
        Decoder(Recurrent(GRU(3, 4)), 3, tied=True)
    with pytest.raises(ConfigError, match="an attention with query_size=4"):
        Decoder(Recurrent(GRU(3, 4)), 3, attention=Attention(5, 4))


def test_writing_is_as_in_evaluation_and_leaves_the_mode() -> None:
    torch.manual_seed(0)
    decoder = Decoder(Recurrent(GRU(6, 8)), 10, dropout=0.9)
    first = torch.tensor([1, 2])
    one, two = (write(decoder, first, steps=6) for _ in range(2))
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.log_probabilities, two.log_probabilities)
    assert decoder.training
    made = model().train()
    searched = [made.search(SOURCE, steps=4).scores for _ in range(2)]
    assert torch.equal(*searched)
    assert made.training


def test_an_empty_batch_writes_nothing() -> None:
    made = model()
    found = made.search(SOURCE[:0], steps=3, width=2)
    assert found.tokens.shape[:2] == (0, 1)
    assert made.write(SOURCE[:0], steps=3).tokens.shape[0] == 0


def test_there_may_be_fewer_hypotheses_than_asked_for() -> None:
    torch.manual_seed(0)
    found = beam_search(Decoder(Recurrent(GRU(3, 4)), 2), torch.tensor([0]), width=5, steps=2, end=1, count=5)
    assert found.scores.isfinite().tolist() == [[True, True, False, False, False]]
    assert sorted(found.lengths[0, :2].tolist()) == [0, 1]
    assert found.lengths[0, 2:].tolist() == [0, 0, 0]
    assert (found.tokens[0, 2:] == 1).all()


def test_equally_likely_tokens_are_told_apart() -> None:
    assert Draw(top_k=1).probabilities(torch.zeros(1, 5)).tolist() == [[1, 0, 0, 0, 0]]
    assert int(Draw(temperature=1e-40)(torch.tensor([[0.0, 2.0, 1.0]]))) == 1


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 2.5}, {"steps": 3, "end": 99}])
def test_numbers_that_cannot_be_are_told(wrong: dict[str, Any]) -> None:
    decoder = Decoder(Recurrent(GRU(3, 4)), 5)
    with pytest.raises(ConfigError):
        write(decoder, torch.tensor([0]), **wrong)
    with pytest.raises(ConfigError):
        beam_search(decoder, torch.tensor([0]), width=2, **({"end": 1} | wrong))
    with pytest.raises(ShapeError, match="expected tokens 0 to 4; got 7"):
        write(decoder, torch.tensor([7]), steps=2)
    with pytest.raises(ConfigError, match="top_k a whole number"):
        Draw(top_k=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a length penalty of at least 0; got nan"):
        Penalties(length=float("nan"))


def test_what_is_of_the_wrong_kind_is_told() -> None:
    made, first = model(), torch.tensor([BEGIN])
    with pytest.raises(ConfigError, match=r"draw to be a tidegate\.nn\.decode\.Draw; got 0\.9"):
        write(made.decoder, first, steps=2, draw=0.9)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"decoder to be a tidegate\.nn\.decoder\.Decoder; got Seq2Seq"):
        write(made, first, steps=2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"penalties to be a tidegate\.nn\.beam\.Penalties; got 0\.6"):
        made.search(SOURCE, steps=2, penalties=0.6)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"before to be a tidegate\.nn\.decoder\.Decoding; got 3"):
        beam_search(made.decoder, first, 3, width=2, steps=2, end=END)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a length penalty of at least 0; got 'long'"):
        Penalties(length="long")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="drawing tokens; expected logits, a tensor"):
        Draw()([1.0, 2.0])  # type: ignore[arg-type]
