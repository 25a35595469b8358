"""Drawn tasks against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from trials import adding, copying, curves, frames, order, reber, reversal, spread, unaligned
from trials.images import digits


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_adding_marks_one_number_of_each_half_and_asks_for_their_sum(random) -> None:
    batch = adding.draw(random, 50, 21)
    values, marks = batch.x.unbind(2)
    assert ((values >= 0) & (values < 1)).all()
    assert (marks[:, :10].sum(1) == 1).all()
    assert (marks[:, 10:].sum(1) == 1).all()
    torch.testing.assert_close(
        batch.y[:, 0], torch.stack([v[m == 1].sum() for v, m in zip(values, marks, strict=True)])
    )


def test_the_baseline_of_adding_is_the_variance_of_its_targets(random) -> None:
    y = adding.draw(random, 20_000, 20).y
    assert float((y - 1).square().mean()) == pytest.approx(adding.Adding.chance, rel=0.03)


def test_copying_reads_symbols_blanks_and_a_mark_and_says_the_symbols_last(random) -> None:
    batch = copying.draw(random, 3, 7)
    read, said = batch.x.argmax(2), batch.y
    assert (batch.x.sum(2) == 1).all()
    assert read.shape == said.shape == (3, 27)
    assert (read[:, :10] < 8).all()
    assert (read[:, 10:16] == copying.BLANK).all()
    assert (read[:, 16] == copying.NOW).all()
    assert (read[:, 17:] == copying.BLANK).all()
    assert (said[:, :17] == copying.BLANK).all()
    assert torch.equal(said[:, 17:], read[:, :10])


def test_the_chance_line_of_copying_is_what_blanks_and_then_anything_cost(random) -> None:
    problem = copying.TASK.problem
    batch = copying.draw(random, 4, copying.LENGTH)
    says = torch.full((4, copying.LENGTH + 20, copying.SYMBOLS + 1), -1e4)
    says[:, : copying.LENGTH + 10, copying.BLANK] = 1e4
    says[:, -10:, : copying.SYMBOLS] = 0.0
    total, count = problem.score(batch, says)
    assert total / count == pytest.approx(10 * math.log(8) / 120)
    assert problem.chance == pytest.approx(total / count)
    assert problem.goal == pytest.approx(total / count / 2)


def test_temporal_order_has_two_telling_symbols_in_their_places_and_four_classes(random) -> None:
    batch = order.draw(random, 400, 50)
    symbols = batch.x.argmax(2)
    telling = symbols >= order.A
    assert (telling.sum(1) == 2).all()
    assert (telling[:, 5:10].sum(1) == 1).all()
    assert (telling[:, 20:25].sum(1) == 1).all()
    first, second = (symbols[telling] - order.A).reshape(-1, 2).unbind(1)
    assert torch.equal(batch.y, 2 * first + second)
    assert sorted(batch.y.unique().tolist()) == [0, 1, 2, 3]


def _parses(text: str) -> bool:
    """Whether a string leads from the start of the grammar to its end."""
    states = {0}
    for symbol in text[1:]:
        states = {reber.GRAMMAR[s][symbol] for s in states if s < len(reber.GRAMMAR) and symbol in reber.GRAMMAR[s]}
    return text[0] == "B" and len(reber.GRAMMAR) in states


@pytest.mark.parametrize("text", ["BTXSE", "BPVVE", "BTSSXXTVVE", "BPTVPSE", "BTXXVPSE", "BPTTVPXVVE"])
def test_known_reber_strings_are_the_grammars(text) -> None:
    assert _parses(text)


@pytest.mark.parametrize("text", ["BTXE", "BPVE", "TTXSE", "BTSE", "BPVVEE", "BXSE"])
def test_what_is_no_reber_string_is_not(text) -> None:
    assert not _parses(text)


@pytest.mark.parametrize(("depth", "inner"), [(1, 1), (2, 3)])
def test_embedded_reber_strings_parse_and_end_as_they_began(random, depth, inner) -> None:
    for _ in range(100):
        text, follows = reber.string(random, depth, inner)
        assert len(follows) == len(text) - 1
        assert all(symbol in legal for symbol, legal in zip(text[1:], follows, strict=True))
        for _ in range(depth):
            assert (text[0], text[1], text[-1]) == ("B", text[-2], "E")
            assert (follows[0], follows[-2], follows[-1]) == ({"T", "P"}, {text[1]}, {"E"})
            text, follows = text[2:-2], follows[2:-2]
        parts = text.split("E")[:-1]
        assert len(parts) == inner
        assert all(_parses(part + "E") for part in parts)


def test_a_reber_string_is_right_only_where_what_may_follow_is_likely_and_nothing_else(random) -> None:
    problem = reber.Reber()
    batch = reber.draw(random, 20)
    legal = 10 * batch.y[..., 1:].float()
    assert problem.score(batch, legal) == (20.0, 20)
    wrong = legal.clone()
    wrong[0, batch.lengths[0] - 2, :] = 10 - wrong[0, batch.lengths[0] - 2, :]
    padding = batch.lengths.argmin()
    wrong[padding, batch.lengths[padding] :, :] = torch.randn(legal.shape[1] - batch.lengths[padding], 7)
    assert problem.score(batch, wrong) == (19.0, 20)
    lucky = legal.clone()
    lucky[1, batch.lengths[1] - 2, [reber.SYMBOLS.index("T"), reber.SYMBOLS.index("P")]] = 10.0
    assert problem.score(batch, lucky) == (19.0, 20)


def test_reversal_says_the_source_backwards_and_then_the_end(random) -> None:
    batch = reversal.draw(random, 30, 8)
    assert int(batch.lengths.min()) >= 4
    assert int(batch.lengths.max()) <= 8
    for source, said, length in zip(batch.x, batch.y, batch.lengths.tolist(), strict=True):
        assert torch.equal(said[:length], source[:length].flip(0))
        assert (said[length:] == reversal.END).all()
    problem = reversal.Reversal()
    logits = torch.nn.functional.one_hot(batch.y, 12).float()
    assert problem.score(batch, logits) == (30.0, 30)
    assert problem.loss(batch, logits)[1] == int((batch.lengths + 1).sum())


def test_frames_move_on_by_as_much_each_step_and_come_in_on_the_other_side(random) -> None:
    batch = frames.draw(random, 40, digits()["train"])
    film = torch.cat([batch.x, batch.y[:, -1:]], 1)[:, :, 0]
    assert torch.equal(batch.x[:, 1:], batch.y[:, :-1])
    torch.testing.assert_close(film.sum((2, 3)), film[:, :1].sum((2, 3)).expand(40, frames.SHOWN + 1))
    moves = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    for one in film:
        assert any(torch.equal(one[:-1].roll(move, (1, 2)), one[1:]) for move in moves)
    wrapped = (film[:, :, 0] * film[:, :, -1]).sum()
    assert wrapped > 0


def test_frames_are_judged_from_the_third_on(random) -> None:
    problem, batch = frames.Frames(), frames.draw(random, 3, digits()["valid"])
    prediction = torch.zeros_like(batch.y)
    prediction[:, 0] = 100.0
    total, count = problem.score(batch, prediction)
    assert total / count == pytest.approx(math.log(2))
    assert count == 3 * (frames.SHOWN - 1) * frames.SIDE**2


def test_curves_are_their_classes_at_another_pace(random, monkeypatch) -> None:
    monkeypatch.setattr(curves, "NOISE", 0.0)
    batch = curves.draw(random, 60, 200)
    assert int(batch.lengths.min()) >= 100
    assert int(batch.lengths.max()) <= 200
    whole = np.sin(np.pi * np.outer(np.linspace(0, 1, 2000), np.arange(1, 5))) @ curves.shapes().T
    for x, y, length in zip(batch.x[..., 0].numpy(), batch.y.tolist(), batch.lengths.tolist(), strict=True):
        assert (x[length:] == 0).all()
        reached = np.abs(whole[:, y, None] - x[None, :length]).min(0)
        assert reached.max() < 0.02
        assert x[:length].max() == pytest.approx(whole[:, y].max(), abs=0.2)


def test_symbols_in_noise_come_in_order_and_nothing_is_said_behind_the_last(random) -> None:
    class Silent:
        """A source of numbers whose noise is silence."""

        def normal(self, size):
            return np.zeros(size)

        def __getattr__(self, name):
            return getattr(random, name)

    batch = unaligned.draw(Silent(), 50)
    for x, said in zip(batch.x, batch.y, strict=True):
        heard = [int(step.argmax()) + 1 if step.max() > 0 else 0 for step in x]
        begun = [now for before, now in zip([0, *heard], heard, strict=False) if now and now != before]
        count = int((said > 0).sum())
        assert 3 <= count <= 6
        assert (said[count:] == 0).all()
        assert begun == said[:count].tolist()
        assert all(heard.count(s) >= 2 for s in set(begun))


@pytest.mark.parametrize(
    ("said", "truth", "needs"),
    [([], [], 0), ([1, 2], [], 2), ([], [3], 1), ([1, 2, 3], [1, 3], 1), ([1, 2, 3], [2, 3, 4], 2), ([1], [2], 1)],
)
def test_edits_are_levenshteins(said, truth, needs) -> None:
    assert unaligned.edits(said, truth) == unaligned.edits(truth, said) == needs


def test_label_errors_are_edits_of_the_best_path_and_an_even_spread_names_every_step(random) -> None:
    problem, batch = unaligned.Unaligned(), unaligned.draw(random, 20)
    logits = torch.full((20, unaligned.STEPS, unaligned.SYMBOLS + 1), -10.0)
    logits[..., 0] = 0.0
    symbols = int((batch.y > 0).sum())
    assert problem.score(batch, logits) == (symbols, symbols)
    for row, said in enumerate(batch.y):
        for place, symbol in enumerate(said[said > 0].tolist()):
            logits[row, 6 * place, symbol] = 10.0
    assert problem.score(batch, logits) == (0, symbols)
    arm = unaligned.TASK.arms[0]
    even = problem.network(arm.kind, arm.hidden, {}, dict(arm.around))
    held = torch.stack([said[torch.arange(40) * (said > 0).sum() // 40] for said in batch.y])
    sure = torch.nn.functional.one_hot(held, 6) * 100.0
    total, count = even.train().loss(batch, sure)
    assert count == 20 * unaligned.STEPS
    assert float(total) == pytest.approx(0.0, abs=1e-3)


def test_a_series_whose_noise_grows_remembers_as_much_as_it_says(random) -> None:
    batch = spread.draw(random, 4000)
    assert torch.equal(batch.x[:, 1:], batch.y[:, :-1])
    noise = batch.y - spread.MEMORY * batch.x
    assert float((noise * batch.x).mean() / batch.x.square().mean()) == pytest.approx(0.0, abs=0.02)
    assert float(noise.abs().quantile(0.5)) == pytest.approx(0.74, abs=0.1)


@pytest.mark.parametrize(
    "problem",
    [adding.TASK, copying.TASK, curves.TASK, frames.TASK, order.TASK, reversal.TASK, spread.TASK, unaligned.TASK],
)
def test_batches_follow_from_the_seed_the_epoch_and_the_step(problem, tmp_path) -> None:
    def drawn(seed: int, epoch: int, start: int):
        return next(problem.problem.train(seed, tmp_path, None).batches(epoch, start)).x

    assert torch.equal(drawn(0, 1, 2), drawn(0, 1, 2))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(drawn(0, 1, 2), drawn(*other))
