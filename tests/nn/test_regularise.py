"""AR and TAR, written out; what watches leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from tidegate.cells import GRU
from tidegate.errors import ConfigError
from tidegate.nn import LSTM, Decoder, Recurrent, Regulariser
from tidegate.nn.regularise import activation_l2, activation_slowness

LENGTHS = [4, 1, 0, 3]


def by_hand(rows: Tensor, lengths: list[int], breaks: frozenset[tuple[int, int]] = frozenset()) -> tuple[float, float]:
    """Means over units and real steps, and over pairs of them."""
    real = [rows[b, t] for b, n in enumerate(lengths) for t in range(n)]
    pairs = [rows[b, t] - rows[b, t - 1] for b, n in enumerate(lengths) for t in range(1, n) if (b, t) not in breaks]
    return float(torch.stack(real).square().mean()), float(torch.stack(pairs).square().mean())


def test_the_terms_are_means_over_real_steps_and_pairs() -> None:
    rows, lengths = torch.randn(4, 5, 3, dtype=torch.float64), torch.tensor(LENGTHS)
    for given, known in ((None, [5] * 4), (lengths, LENGTHS)):
        l2, slowness = by_hand(rows, known)
        assert float(activation_l2(rows, given)) == pytest.approx(l2)
        assert float(activation_slowness(rows, given)) == pytest.approx(slowness)
    resets = torch.zeros(4, 5, dtype=torch.bool)
    resets[0, 2] = resets[3, 1] = True
    slowness = by_hand(rows, LENGTHS, frozenset({(0, 2), (3, 1)}))[1]
    assert float(activation_slowness(rows, lengths, resets)) == pytest.approx(slowness)
    assert float(activation_slowness(rows, torch.zeros(4, dtype=torch.int64))) == 0
    assert float(activation_slowness(rows[:, :1])) == 0


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Recurrent(GRU(2, 4)), Recurrent(GRU(4, 3), layers=2, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.last = self.second(self.first(x, lengths=lengths)[0], lengths=lengths)[0]
        return self.last


def test_a_network_is_watched_for_one_call() -> None:
    model, x = Two(), torch.randn(4, 5, 2)
    regulariser = Regulariser(model, activation_l2=2.0, activation_slowness=3.0)
    with regulariser.watching():
        model(x, torch.tensor(LENGTHS))
    total = regulariser(torch.tensor(1.0))
    l2, slowness = by_hand(model.last.detach(), LENGTHS)
    assert float(total.detach()) == pytest.approx(1 + 2 * l2 + 3 * slowness)
    total.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(ConfigError, match="no layer that ran"):
        regulariser(torch.tensor(1.0))


def test_steps_first_and_packed_rows_are_the_same_rows() -> None:
    torch.manual_seed(0)
    layer, x, lengths = LSTM(2, 3), torch.randn(4, 5, 2), torch.tensor([4, 1, 2, 3])
    terms = []
    for read, named in (
        (x.transpose(0, 1), {"lengths": lengths}),
        (pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), {}),
    ):
        regulariser = Regulariser(layer, activation_l2=1.0, activation_slowness=1.0)
        with regulariser.watching():
            layer(read, **named)
        terms.append(float(regulariser(torch.zeros(())).detach()))
    assert terms[0] == pytest.approx(terms[1])
    assert terms[0] > 0


def test_a_failing_call_leaves_nothing_behind_and_a_decoders_steps_are_not_called() -> None:
    model = Two()
    regulariser = Regulariser(model, activation_l2=1.0, omega=1.0)
    with pytest.raises(TypeError), regulariser.watching():
        model(torch.randn(4, 5, 2))
    assert model.first.watch is None
    assert not model.first._forward_hooks
    decoder = Decoder(Recurrent(GRU(4, 4)), tokens=5)
    alone = Regulariser(decoder, activation_l2=1.0)
    with alone.watching():
        decoder(torch.zeros(2, 3, dtype=torch.long), teacher=0.5)
    with pytest.raises(ConfigError, match="expected a run of the model that was watched"):
        alone(torch.tensor(1.0))
    steps = Regulariser(decoder, omega=1.0)
    with steps.watching():
        logits, _, _ = decoder(torch.zeros(2, 3, dtype=torch.long), teacher=0.5)
    loss = logits.square().mean()
    assert steps(loss) > loss


@pytest.mark.parametrize("weights", [{"activation_l2": -1.0}, {"omega": float("nan")}, {"activation_slowness": "much"}])
def test_weights_of_terms_are_checked(weights) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(weights))} of at least 0; got"):
        Regulariser(Recurrent(GRU(2, 3)), **weights)
