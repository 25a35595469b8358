"""CTC against brute force over every path, and on a problem whose alignment has to be found (B3)."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import pytest
import torch
from torch import Tensor

from tidegate import nn
from tidegate.cells import GRU
from tidegate.errors import ConfigError, ShapeError
from tidegate.tasks.ctc import alignable, best_path, ctc_loss, prefix_search


def scores(*shape: int, seed: int = 0, spread: float = 1.5) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def collapsed(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)


def every_target(logits: Tensor, blank: int) -> dict[tuple[int, ...], float]:
    """The probability of every target of one row [T, V]: the sum over all V^T paths."""
    p, found = logits.softmax(-1).tolist(), defaultdict(float)
    for path in itertools.product(range(logits.shape[1]), repeat=len(p)):
        found[collapsed(path, blank)] += math.prod(step[symbol] for step, symbol in zip(p, path, strict=True))
    return dict(found)


@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("steps", [1, 4, 5])
def test_the_loss_is_the_sum_over_every_path(steps: int, blank: int) -> None:
    logits = scores(1, steps, 3)
    every = every_target(logits[0], blank)
    assert sum(every.values()) == pytest.approx(1)
    symbols = [s for s in range(3) if s != blank]
    for size in range(4):
        for target in itertools.product(symbols, repeat=size):
            y = torch.tensor([target], dtype=torch.int64).reshape(1, size)
            total, count = ctc_loss(logits, y, blank=blank)
            assert int(count) == (target in every)
            assert float(total) == pytest.approx(-math.log(every[target]) if target in every else 0.0, abs=1e-9)


def test_rows_of_a_batch_are_themselves_and_what_lies_beyond_changes_nothing_to_the_bit() -> None:
    logits, target = scores(5, 6, 4), torch.tensor([[1, 2, 3], [1, 1, 2], [2, 0, 0], [3, 3, 3], [1, 2, 0]])
    lengths, sizes = torch.tensor([6, 4, 3, 4, 0]), torch.tensor([3, 3, 0, 3, 2])
    plain, noisy = logits.clone().requires_grad_(), logits.clone()
    noisy[torch.arange(6) >= lengths[:, None]] = math.nan
    noisy.requires_grad_()
    other = target.masked_fill(torch.arange(3) >= sizes[:, None], -100)
    (first, n), (second, m) = (
        ctc_loss(plain, target, lengths=lengths, target_lengths=sizes),
        ctc_loss(noisy, other, lengths=lengths.tolist(), target_lengths=sizes),
    )
    first.backward(), second.backward()
    assert torch.equal(first, second)
    assert torch.equal(plain.grad, noisy.grad)  # type: ignore[arg-type]
    assert alignable(target, lengths, sizes).tolist() == [True, True, True, False, False]
    assert int(n) == int(m) == 3
    assert (plain.grad[3:] == 0).all()  # type: ignore[index]
    assert (plain.grad[2, 3:] == 0).all()  # type: ignore[index]
    alone = sum(
        float(ctc_loss(logits[b : b + 1, :t], target[b : b + 1, :s])[0])
        for b, t, s in ((0, 6, 3), (1, 4, 3), (2, 3, 0))
    )
    assert first.item() == pytest.approx(alone)
    blanks = -float(logits[2, :3].log_softmax(-1)[:, 0].sum())
    assert float(ctc_loss(logits[2:3, :3], target[2:3, :0])[0]) == pytest.approx(blanks)


def test_gradients_of_the_loss() -> None:
    target, sizes, lengths = torch.tensor([[1, 1], [2, 0]]), torch.tensor([2, 1]), torch.tensor([4, 3])
    logits = scores(2, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: ctc_loss(z, target, lengths=lengths, target_lengths=sizes)[0], (logits,))


@pytest.mark.parametrize(("batch", "steps", "size"), [(0, 3, 1), (2, 0, 0), (2, 0, 2), (2, 3, 0)])
def test_nothing_to_align(batch: int, steps: int, size: int) -> None:
    logits = torch.zeros(batch, steps, 3)
    total, count = ctc_loss(logits, torch.ones(batch, size).long())
    assert int(count) == (0 if size and not steps else batch)
    assert float(total) == pytest.approx(batch * math.log(3) * steps if not size else 0.0)
    assert best_path(logits).tokens.shape == (batch, 0)
    assert prefix_search(logits, width=2).tokens.shape[:2] == (batch, 1)


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_search_finds_every_target_with_its_probability(blank: int) -> None:
    logits, lengths = scores(3, 5, 3), torch.tensor([5, 2, 0])
    found = prefix_search(logits, lengths=lengths, width=60, count=8, blank=blank)
    for row, n in enumerate(lengths.tolist()):
        every = every_target(logits[row, :n], blank)
        best = sorted(every.items(), key=lambda item: -item[1])[:8]
        for place, (target, probability) in enumerate(best):
            size = int(found.lengths[row, place])
            assert tuple(found.tokens[row, place, :size].tolist()) == target
            assert float(found.log_probabilities[row, place]) == pytest.approx(math.log(probability), abs=1e-9)
        assert (found.scores[row, len(best) :] == -math.inf).all()
    one = prefix_search(logits, lengths=lengths, width=60, blank=blank).best()
    assert torch.equal(one.log_probabilities, found.scores[:, 0])


def test_a_narrower_search_counts_no_path_twice_and_finds_no_worse_than_the_best_path() -> None:
    better = 0
    for seed in range(20):
        logits = scores(1, 6, 3, seed=seed)
        every, greedy = every_target(logits[0], 0), best_path(logits)
        narrow = prefix_search(logits, width=8).best()
        target = tuple(narrow.tokens[0].tolist())
        assert float(narrow.log_probabilities[0]) <= math.log(every[target]) + 1e-9
        first = every[tuple(greedy.tokens[0].tolist())]
        assert math.log(first) >= float(greedy.log_probabilities[0]) - 1e-9
        assert every[target] >= first - 1e-12
        better += every[target] > first + 1e-9
    assert better >= 1


def test_the_best_path_is_the_likeliest_symbols_merged() -> None:
    path = torch.tensor([[1, 1, 0, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0, 0], [2, 1, 1, 0, 0, 2, 1]])
    logits = torch.nn.functional.one_hot(path, 3).double() * 4
    lengths = torch.tensor([7, 7, 3])
    logits[2, 3:] = math.nan
    found = best_path(logits, lengths=lengths)
    assert found.lengths.tolist() == [3, 0, 2]
    assert found.tokens.tolist() == [[1, 1, 2], [0, 0, 0], [2, 1, 0]]
    likely = 4 - math.log(math.exp(4) + 2)
    assert found.log_probabilities.tolist() == pytest.approx([7 * likely, 7 * likely, 3 * likely])


@pytest.mark.parametrize(
    ("logits", "target", "options", "says"),
    [
        (torch.zeros(2, 3), torch.ones(2, 1).long(), {}, r"logits \[B, T, V\].*got shape \[2, 3\]"),
        (torch.zeros(2, 3, 4), torch.ones(2).long(), {}, r"targets \[B, S\] of whole numbers, B=2; got shape \[2\]"),
        (torch.zeros(2, 3, 4), torch.ones(2, 1), {}, r"dtype torch\.float32"),
        (torch.zeros(2, 3, 4), torch.tensor([[1, 2], [3, 4]]), {}, r"than the blank, 0; got 4 at place 1 of row 1"),
        (torch.zeros(2, 3, 4), torch.tensor([[1], [0]]), {}, "got 0 at place 0 of row 1"),
        (torch.zeros(2, 3, 4), torch.ones(2, 1).long(), {"blank": 4}, "blank to be one of 4 symbols; got 4"),
        (torch.zeros(2, 3, 4), torch.ones(2, 1).long(), {"lengths": [3, 4]}, r"0\.\.3 \(T\); got 4 in row 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_aligned_is_told(logits: Tensor, target: Tensor, options: dict[str, int], says: str) -> None:
    with pytest.raises((ShapeError, ConfigError), match=says):
        ctc_loss(logits, target, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("width", "count"), [(0, 1), (2, 3), (2.0, 1)])
def test_a_width_that_cannot_be_is_told(width: int, count: int) -> None:
    with pytest.raises(ConfigError, match=r"count from 1 to width; got width="):
        prefix_search(torch.zeros(1, 2, 3), width=width, count=count)


def spoken(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sequences in which a few symbols sound for a random while each, with random pauses; targets say only which."""
    random = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 4, (count,), generator=random)
    target = torch.randint(1, 4, (count, 3), generator=random)
    x = torch.zeros(count, 18, 3)
    lengths = torch.zeros(count, dtype=torch.int64)
    for row in range(count):
        at = int(torch.randint(0, 3, (), generator=random))
        for k in range(int(sizes[row])):
            sounds, pause = (int(n) for n in torch.randint(1, 4, (2,), generator=random))
            x[row, at : at + sounds, target[row, k] - 1] = 1.0
            at += sounds + pause
        lengths[row] = min(at, 18)
    return x + 0.2 * torch.randn(x.shape, generator=random), target, lengths, sizes


def test_a_small_gru_learns_where_symbols_lie() -> None:
    torch.manual_seed(0)
    layer, head = nn.Recurrent(GRU(3, 16)), torch.nn.Linear(16, 4)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    x, target, lengths, sizes = spoken(128, seed=1)
    for _ in range(80):
        total, count = ctc_loss(head(layer(x, lengths=lengths)[0]), target, lengths=lengths, target_lengths=sizes)
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    x, target, lengths, sizes = spoken(64, seed=2)
    with torch.no_grad():
        logits = head(layer(x, lengths=lengths)[0])
    for found in (best_path(logits, lengths=lengths), prefix_search(logits, lengths=lengths, width=4).best()):
        right = [
            torch.equal(tokens[:n], y[:s])
            for tokens, n, y, s in zip(found.tokens, found.lengths, target, sizes, strict=True)
        ]
        assert sum(right) >= 0.9 * 64
