"""Losses against direct transcriptions in float64, torch and SciPy; gradients; what is ignored changes nothing (B3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import mean_pinball_loss
from torch import Tensor
from torch.nn import functional as F

from tidegate.data.batch import IGNORED
from tidegate.errors import ConfigError, ShapeError
from tidegate.tasks import losses
from tidegate.tasks.long_tail import class_balanced_weights

CLASSES = 4


def drawn(*shape: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picked(*shape: int, most: int = CLASSES, seed: int = 1) -> Tensor:
    return torch.randint(0, most, shape, generator=torch.Generator().manual_seed(seed))


LOGITS, TARGET = drawn(9, CLASSES), picked(9)
WEIGHT, MARGINS, PRIOR = drawn(CLASSES).exp(), drawn(CLASSES).abs(), drawn(CLASSES).log_softmax(-1)
OF_CLASSES: dict[str, Callable[[Tensor, Tensor], losses.Sums]] = {
    "cross_entropy": losses.cross_entropy,
    "smoothed": lambda z, y: losses.cross_entropy(z, y, label_smoothing=0.2, weight=WEIGHT),
    "adjusted": lambda z, y: losses.cross_entropy(z, y, adjustment=0.7 * PRIOR),
    "focal": lambda z, y: losses.focal(z, y, gamma=1.5, weight=WEIGHT),
    "ldam": lambda z, y: losses.ldam(z, y, MARGINS, scale=3.0, weight=WEIGHT),
}


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def by_hand(name: str, z: np.ndarray, y: int) -> float:
    """One target's loss, from the papers' equations."""
    w, margins, prior = WEIGHT.numpy(), MARGINS.numpy(), PRIOR.numpy()
    p = softmax(z)
    if name == "cross_entropy":
        return -math.log(p[y])
    if name == "smoothed":
        return 0.8 * -w[y] * math.log(p[y]) + 0.2 / CLASSES * float((-w * np.log(p)).sum())
    if name == "adjusted":
        return -math.log(softmax(z + 0.7 * prior)[y])
    if name == "focal":
        return -w[y] * (1 - p[y]) ** 1.5 * math.log(p[y])
    own = math.exp(3.0 * (z[y] - margins[y]))
    others = sum(math.exp(3.0 * z[j]) for j in range(CLASSES) if j != y)
    return -w[y] * math.log(own / (own + others))


@pytest.mark.parametrize("name", OF_CLASSES)
def test_losses_of_classes_are_their_equations(name: str) -> None:
    total, count = OF_CLASSES[name](LOGITS, TARGET)
    expected = sum(by_hand(name, z, int(y)) for z, y in zip(LOGITS.numpy(), TARGET, strict=True))
    assert float(total) == pytest.approx(expected, 1e-10)
    assert int(count) == 9
    single, _ = OF_CLASSES[name](LOGITS.float(), TARGET)
    assert float(single) == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_gradients_of_losses_of_classes(name: str) -> None:
    z = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: OF_CLASSES[name](z, TARGET)[0], (z,))


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("fill", [7.0, math.nan, math.inf])
def test_what_is_ignored_changes_nothing_to_the_bit(name: str, fill: float) -> None:
    z, y = drawn(3, 5, CLASSES, seed=2), picked(3, 5, seed=3)
    y[0, 3:], y[2] = IGNORED, IGNORED
    plain, filled = z.clone().requires_grad_(), z.clone()
    filled[y == IGNORED] = fill
    filled.requires_grad_()
    (first, n), (second, m) = OF_CLASSES[name](plain, y), OF_CLASSES[name](filled, y)
    first.backward(), second.backward()
    assert torch.equal(first, second)
    assert torch.equal(plain.grad, filled.grad)  # type: ignore[arg-type]
    assert (filled.grad[y == IGNORED] == 0).all()  # type: ignore[index]
    assert int(n) == int(m) == 8
    assert float(OF_CLASSES[name](z[y != IGNORED], y[y != IGNORED])[0]) == pytest.approx(first.item(), 1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_is_torchs(smoothing: float) -> None:
    total, count = losses.cross_entropy(LOGITS, TARGET, label_smoothing=smoothing)
    torch.testing.assert_close(total / count, F.cross_entropy(LOGITS, TARGET, label_smoothing=smoothing))


def test_focal_without_focus_is_cross_entropy_and_without_margins_so_is_ldam() -> None:
    plain = losses.cross_entropy(LOGITS, TARGET)[0]
    torch.testing.assert_close(losses.focal(LOGITS, TARGET, gamma=0.0)[0], plain)
    torch.testing.assert_close(losses.ldam(LOGITS, TARGET, torch.zeros(CLASSES), scale=1.0)[0], plain)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_stays_finite_where_a_probability_rounds_to_one(gamma: float) -> None:
    z = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
    total, _ = losses.focal(z, torch.tensor([0, 0]), gamma=gamma)
    total.backward()
    assert total.item() == pytest.approx(200 + math.log(2))
    assert z.grad is not None
    assert z.grad.isfinite().all()
    one = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    losses.binary_focal(one, torch.ones(2, 1), gamma=gamma)[0].backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()


PAIRS = drawn(3, 2, seed=4).exp()
OF_LABELS: dict[str, Callable[[Tensor, Tensor], losses.Sums]] = {
    "cross_entropy": lambda z, y: losses.binary_cross_entropy(z, y, label_smoothing=0.2, weight=PAIRS),
    "focal": lambda z, y: losses.binary_focal(z, y, gamma=1.5, weight=PAIRS),
}


@pytest.mark.parametrize("name", OF_LABELS)
def test_losses_of_labels_are_those_of_two_classes(name: str) -> None:
    z, y = drawn(8, 3), picked(8, 3, most=2)
    total, count = OF_LABELS[name](z, y.double())
    expected = 0.0
    for c in range(3):
        both = torch.stack([torch.zeros(8, dtype=torch.float64), z[:, c]], 1)
        each: Tensor
        if name == "focal":
            each, _ = losses.focal(both, y[:, c], gamma=1.5, weight=PAIRS[c])
        else:
            # Here a weight is that of the truth; torch's smoothing weighs each share by its own class.
            each = (F.cross_entropy(both, y[:, c], label_smoothing=0.2, reduction="none") * PAIRS[c][y[:, c]]).sum()
        expected += float(each)
    assert float(total) == pytest.approx(expected, 1e-10)
    assert int(count) == 24
    assert torch.autograd.gradcheck(lambda z: OF_LABELS[name](z, y.double())[0], (z.clone().requires_grad_(),))


def test_alpha_of_the_paper() -> None:
    z, y, alpha = drawn(5, 3), picked(5, 3, most=2).double(), 0.25
    total, _ = losses.binary_focal(z, y, gamma=2.0, weight=torch.tensor([1 - alpha, alpha]).expand(3, 2))
    p = torch.where(y == 1, z.sigmoid(), 1 - z.sigmoid())
    a = torch.where(y == 1, alpha, 1 - alpha)
    torch.testing.assert_close(total, (-a * (1 - p) ** 2 * p.log()).sum())


TRUTH = drawn(6, 2, seed=5)
LEVELS = (0.1, 0.5, 0.8)
OF_NUMBERS: dict[str, tuple[Callable[[Tensor, Tensor], losses.Sums], Tensor]] = {
    "squared": (losses.squared_error, drawn(6, 2)),
    "absolute": (losses.absolute_error, drawn(6, 2)),
    "huber": (lambda p, y: losses.huber(p, y, threshold=0.7), drawn(6, 2)),
    "pinball": (lambda p, y: losses.pinball(p, y, LEVELS), drawn(6, 2, 3)),
    "nll": (lambda p, y: losses.nll(torch.distributions.Normal(p[..., 0], p[..., 1].exp()), y), drawn(6, 2, 2)),
}


def number_by_hand(name: str, p: np.ndarray, y: np.ndarray) -> float:
    error = y[..., None] - p if p.ndim > y.ndim else y - p
    if name == "pinball":
        return sum(
            len(y.ravel()) * mean_pinball_loss(y.ravel(), p[..., i].ravel(), alpha=q) / 3 for i, q in enumerate(LEVELS)
        )
    if name == "nll":
        scale = np.exp(p[..., 1])
        return float((0.5 * ((y - p[..., 0]) / scale) ** 2 + np.log(scale) + 0.5 * math.log(2 * math.pi)).sum())
    small = np.abs(error)
    each = {"squared": error**2, "absolute": small,
            "huber": np.where(small <= 0.7, error**2 / 2, 0.7 * (small - 0.35))}[name]  # fmt: skip
    return float(each.sum())


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_losses_of_numbers_are_their_equations_and_a_missing_truth_counts_nothing(name: str) -> None:
    loss, prediction = OF_NUMBERS[name]
    total, count = loss(prediction, TRUTH)
    assert float(total) == pytest.approx(number_by_hand(name, prediction.numpy(), TRUTH.numpy()), 1e-10)
    assert int(count) == 12
    assert torch.autograd.gradcheck(lambda p: loss(p, TRUTH)[0], (prediction.clone().requires_grad_(),))
    holed, guess = TRUTH.clone(), prediction.clone()
    holed[2], guess[2] = math.nan, 9.0 if name == "nll" else math.nan
    guess.requires_grad_()
    total, count = loss(guess, holed)
    total.backward()
    kept = [0, 1, 3, 4, 5]
    assert total.item() == pytest.approx(number_by_hand(name, prediction[kept].numpy(), TRUTH[kept].numpy()), 1e-10)
    assert int(count) == 10
    assert guess.grad is not None
    assert (guess.grad[2] == 0).all()


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: losses.cross_entropy(torch.zeros(3, 2), TARGET), ShapeError, r"\[3\] for logits \[3, 2\]"),
        (lambda: losses.focal(torch.zeros(3, 2), torch.zeros(3)), ShapeError, r"whole numbers .*dtype torch\.float32"),
        (lambda: losses.ldam(torch.zeros(1, 2), torch.tensor([2]), torch.zeros(2)), ConfigError, r"0\.\.1.*got 2"),
        (lambda: losses.squared_error(torch.zeros(3), torch.zeros(3, 1)), ShapeError, r"truths' shape \[3, 1\]"),
        (lambda: losses.binary_focal(torch.zeros(3), torch.zeros(2)), ShapeError, r"truths' shape \[2\]"),
        (lambda: losses.pinball(torch.zeros(3), torch.zeros(3), (0.5,)), ShapeError, r"predictions \[3, 1\]"),
        (lambda: losses.nll(torch.distributions.Normal(0.0, 1.0), torch.zeros(3)), ShapeError, r"each truth \[3\]"),
        (lambda: losses.focal(LOGITS, TARGET, weight=torch.ones(3)), ShapeError, r"weight \[4\], C=4.*shape \[3\]"),
        (lambda: losses.ldam(LOGITS, TARGET, torch.ones(2)), ShapeError, r"margins \[4\]"),
        (lambda: losses.binary_focal(LOGITS, LOGITS, weight=torch.ones(2)), ShapeError, r"weight \[4, 2\]"),
        (lambda: losses.cross_entropy(LOGITS, TARGET, label_smoothing=1.0), ConfigError, "below 1; got 1.0"),
        (lambda: losses.pinball(torch.zeros(3, 1), torch.zeros(3), (1.5,)), ConfigError, r"got \(1\.5,\)"),
        (lambda: class_balanced_weights((3, 4), 1.5), ConfigError, "beta from 0 to 1; got 1.5"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_told(call: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        call()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda z, y: losses.focal(z, y, gamma=-1.0), "gamma of at least 0; got -1"),
        (lambda z, y: losses.ldam(z, y, torch.ones(3), scale=0.0), "scale above 0; got 0"),
        (lambda z, y: losses.binary_focal(z, F.one_hot(y, 3), gamma=math.nan), "gamma of at least 0; got nan"),
        (lambda z, y: losses.huber(z[:, 0], y.float(), threshold=-1.0), "threshold above 0; got -1"),
    ],
)
def test_options_out_of_range_are_told(call, says) -> None:
    with pytest.raises(ConfigError, match=says):
        call(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]))
