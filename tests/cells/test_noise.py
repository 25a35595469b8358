"""What a run draws, and that evaluation gives its expectation."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from tidegate.cells import CELLS, GRU, LSTM, AntisymmetricRNN, Cell
from tidegate.cells.idle import idle_noise
from tidegate.cells.noise import draw
from tidegate.compile import select
from tidegate.errors import ConfigError
from tidegate.nn import Recurrent

X = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backend", ["reference", "llvm"])
@pytest.mark.parametrize("kind", [GRU, CELLS["gru_reset_before"], AntisymmetricRNN, CELLS["rhn"]])
def test_dropconnect_is_one_mask_a_run_on_the_recurrent_weights(kind: Callable[..., Cell], backend: str) -> None:
    torch.manual_seed(1)
    cell = kind(3, 5, dropconnect=0.4, dtype=torch.float64)
    plain = kind(3, 5, dtype=torch.float64)
    torch.manual_seed(2)
    mask = cell.draw(X).whole["weight_mask"]
    torch.testing.assert_close(mask.unique(), torch.tensor([0, 1 / 0.6], dtype=torch.float64))
    plain.load_state_dict(cell.state_dict())
    with torch.no_grad():
        plain.weight_hh.mul_(mask)
    torch.manual_seed(2)
    x = X.clone().requires_grad_()
    found, expected = select.unroll(cell, x, backend=backend)[0], select.unroll(plain, x, backend="reference")[0]
    torch.testing.assert_close(found, expected)
    one, other = (torch.autograd.grad(y.sum(), [x, c.weight_hh]) for y, c in ((found, cell), (expected, plain)))
    torch.testing.assert_close(one[0], other[0])
    torch.testing.assert_close(one[1], other[1] * mask)
    plain.load_state_dict(cell.state_dict())
    torch.testing.assert_close(select.unroll(cell.eval(), X)[0], select.unroll(plain, X)[0])


def test_a_run_draws_anew_and_a_cell_without_recurrent_weights_draws_nothing() -> None:
    cell = GRU(3, 5, dropconnect=0.5)
    first, second = (select.unroll(cell, X.float())[0] for _ in range(2))
    assert not torch.allclose(first, second)
    linear = CELLS["mingru"](3, 5, dropconnect=0.5, dtype=torch.float64)
    torch.testing.assert_close(select.unroll(linear, X)[0], select.unroll(linear, X)[0])


def test_a_rate_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r"dropconnect to be a probability, 0 to 1; got 1\.5"):
        GRU(3, 5, dropconnect=1.5)


def test_rms_norm_is_the_papers() -> None:
    """Zhang & Sennrich 2019, equation 4, on both products of an Elman step."""
    torch.manual_seed(1)
    cell = CELLS["rnn"](3, 5, rms_norm=True, dtype=torch.float64)
    with torch.no_grad():
        cell.norm_ih.uniform_(0.5, 2.0)
        cell.norm_hh.uniform_(0.5, 2.0)
    h = torch.randn(4, 5, dtype=torch.float64)

    def normed(a: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return a / (a.square().mean(-1, keepdim=True) + 1e-5).sqrt() * g

    wx, uh = F.linear(X[:, 0], cell.weight_ih), F.linear(h, cell.weight_hh)
    expected = torch.tanh(normed(wx, cell.norm_ih) + normed(uh, cell.norm_hh) + cell.bias_ih + cell.bias_hh)
    torch.testing.assert_close(cell(X[:, 0], h)[0], expected)


class Own(Cell):
    """Reads its recurrent weights itself, and has no candidate."""

    normed_values = ("h",)

    gates = ("n",)

    def step(self, x, h):  # type: ignore[no-untyped-def]
        return torch.tanh(x + torch.nn.functional.linear(h, self.weight_hh))


def test_noise_that_a_step_never_reads_is_named() -> None:
    asked = {"variational_dropout": 0.2, "recurrent_dropout": 0.2, "dropconnect": 0.2, "zoneout": 0.1}
    own = "has no effect on Own: its step never reads it"
    layer = Recurrent(Own(3, 4, **asked), layers=2)
    before = torch.get_rng_state()
    assert idle_noise(layer) == [
        f"variational_dropout of recurrent products {own}", f"recurrent_dropout {own}", f"dropconnect {own}",
    ]  # fmt: skip
    assert torch.equal(torch.get_rng_state(), before)
    assert idle_noise(Recurrent(GRU(3, 4, batch_norm=2, **asked))) == []
    assert idle_noise(Recurrent(CELLS["mingru"](3, 4, dropconnect=0.2))) == [
        "dropconnect has no effect on MinGRU: its step never reads it"
    ]


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm", None])
def test_what_is_normed_without_a_name_is_refused(norm: str | None) -> None:
    class Unnamed(Own):
        def step(self, x, h):  # type: ignore[no-untyped-def]
            return self.normed("c", super().step(x, h))

    cell = Unnamed(3, 4, **({norm: True} if norm else {}))
    with pytest.raises(ConfigError, match=r"normalising 'c' in a step of Unnamed.*try: normed_values = \('h', 'c'\)"):
        cell(torch.randn(2, 3))


@pytest.mark.parametrize("rate", [0.0, 2**-40, 0.1, 0.5, 1 - 2**-40, 1.0])
@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), (101, 997)])
def test_masks_of_any_size_have_their_rate(rate: float, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(3)
        kept = draw("kept_h", rate, torch.empty(0, dtype=dtype), *shape)
        assert kept.shape == shape
        assert kept.dtype == dtype
        assert bool(((kept == 0) | (kept == 1)).all())
        if kept.numel() > 1000:
            assert abs(float(kept.mean()) - rate) <= 5 * (rate * (1 - rate) / kept.numel()) ** 0.5 + 1e-9
        torch.manual_seed(3)
        assert torch.equal(kept, draw("kept_h", rate, torch.empty(0, dtype=dtype), *shape))


def test_graphs_and_maps_follow_what_is_drawn() -> None:
    layer = Recurrent(LSTM(5, 8, zoneout=0.3, variational_dropout=0.2))
    x = torch.randn(2, 3, 5)
    y = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0]
    assert y.isfinite().all()
    assert torch.export.export(layer, (x,)).module()(x)[0].shape == y.shape
    like = torch.empty(4, 6)
    each = torch.func.vmap(lambda row: draw("kept_h", 0.5, row, 6), randomness="different")(like)
    assert each.shape == (4, 6)
    with FakeTensorMode():
        fake = draw("kept_h", 0.5, torch.empty(2), 7)
    assert isinstance(fake, FakeTensor)
