"""Batch norm inside the recurrence, against the paper's equations written out."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells import GRU, LSTM, SRU, MinGRU
from tidegate.compile import select
from tidegate.errors import BackendError, ConfigError
from tidegate.nn import Recurrent

B, T, INPUTS, H = 6, 5, 3, 4


def cell(steps: int = T, **options: object) -> LSTM:
    torch.manual_seed(3)
    made = LSTM(INPUTS, H, batch_norm=steps, dtype=torch.float64, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name in ("norm_ih", "norm_hh", "norm_c"):
            getattr(made, name).uniform_(0.1, 1.0)
        made.norm_c_bias.uniform_(-0.5, 0.5)
    return made


def paper(cell: LSTM, x: Tensor, norms: dict[str, list[nn.BatchNorm1d]], rows: list[Tensor] | None = None) -> Tensor:
    """Cooijmans et al. 2016, equations 6 to 8, one module of torch's for every step and place; `rows` run at each."""
    h = c = x.new_zeros(x.shape[0], H)
    outputs = []
    for t in range(x.shape[1]):
        at = torch.arange(x.shape[0]) if rows is None else rows[t]
        wx = norms["ih"][t](F.linear(x[at, t], cell.weight_ih)) * cell.norm_ih
        uh = norms["hh"][t](F.linear(h[at], cell.weight_hh)) * cell.norm_hh
        i, f, g, o = (wx + uh + cell.bias_ih + cell.bias_hh).chunk(4, -1)
        new_c = torch.sigmoid(f) * c[at] + torch.sigmoid(i) * torch.tanh(g)
        new_h = torch.sigmoid(o) * torch.tanh(norms["c"][t](new_c) * cell.norm_c + cell.norm_c_bias)
        c, h = c.index_copy(0, at, new_c), h.index_copy(0, at, new_h)
        outputs.append(torch.zeros_like(h).index_copy(0, at, new_h))
    return torch.stack(outputs, 1)


def norms() -> dict[str, list[nn.BatchNorm1d]]:
    sizes = {"ih": 4 * H, "hh": 4 * H, "c": H}
    return {n: [nn.BatchNorm1d(s, affine=False, dtype=torch.float64) for _ in range(T)] for n, s in sizes.items()}


def test_training_is_the_papers_and_what_is_stored_is_torchs() -> None:
    made, peers = cell(), norms()
    for _ in range(3):
        x = torch.randn(B, T, INPUTS, dtype=torch.float64)
        torch.testing.assert_close(select.unroll(made, x)[0], paper(made, x, peers))
    for name, each in peers.items():
        for t, peer in enumerate(each):
            torch.testing.assert_close(made.statistics[name].mean[t], peer.running_mean)
            torch.testing.assert_close(made.statistics[name].var[t], peer.running_var)
    made.eval()
    for each in peers.values():
        for peer in each:
            peer.eval()
    torch.testing.assert_close(select.unroll(made, x)[0], paper(made, x, peers))


def test_rows_that_have_ended_are_in_no_statistic() -> None:
    made, peers = cell(), norms()
    lengths = torch.tensor([5, 2, 3, 5, 4, 5])
    x = torch.randn(B, T, INPUTS, dtype=torch.float64)
    rows = [torch.nonzero(lengths > t).flatten() for t in range(T)]
    hidden = x.clone()
    for row, length in enumerate(lengths):
        hidden[row, length:] = float("nan")
    found = select.unroll(made, hidden, lengths=lengths)[0]
    torch.testing.assert_close(found, paper(made, x, peers, rows))
    torch.testing.assert_close(made.statistics["c"].var[4], peers["c"][4].running_var)


def test_the_last_stored_step_serves_all_that_follow() -> None:
    made = cell(steps=2)
    x = torch.randn(B, T, INPUTS, dtype=torch.float64)
    select.unroll(made, x)
    products = F.linear(x, made.weight_ih)
    torch.testing.assert_close(made.statistics["ih"].mean[0], 0.1 * products[:, 0].mean(0))
    torch.testing.assert_close(made.statistics["ih"].mean[1], 0.1 * products[:, 1:].mean((0, 1)))
    made.eval()
    assert select.unroll(made, torch.randn(2, 9, INPUTS, dtype=torch.float64))[0].isfinite().all()


def test_a_run_moves_what_is_stored_once() -> None:
    made = cell(steps=2)
    for seen in made.statistics.values():
        seen.var.fill_(1e6)
    select.unroll(made, torch.randn(B, 9, INPUTS, dtype=torch.float64))
    for seen in made.statistics.values():
        torch.testing.assert_close(seen.var, torch.full_like(seen.var, 9e5), rtol=1e-4, atol=0)


def test_a_row_that_runs_alone_is_normalised_by_what_is_stored() -> None:
    made = cell(steps=1)
    x = torch.randn(3, 6, INPUTS, dtype=torch.float64)
    lengths = torch.tensor([6, 3, 2])
    found = select.unroll(made, x, lengths=lengths)[0]
    other = x.clone()
    other[0, 3:] += 5
    assert (select.unroll(cell(steps=1), other, lengths=lengths)[0] - found)[0, 3:].abs().max() > 0.01


def test_what_tells_steps_apart_is_refused_where_nobody_says_which() -> None:
    made = cell()
    x = torch.randn(B, INPUTS, dtype=torch.float64)
    with pytest.raises(ConfigError, match="batch_norm=5, with statistics of each step's own"):
        made(x)
    layer = Recurrent(made)
    _, state = layer(x[:, None])
    with pytest.raises(ConfigError, match=r"going on from a state; .*batch_norm=5"):
        layer(x[:, None], state)


def test_gradients_are_the_derivatives() -> None:
    made = cell()
    x = torch.randn(B, 3, INPUTS, dtype=torch.float64, requires_grad=True)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = made

        def forward(self, x: Tensor) -> Tensor:
            return select.unroll(self.cell, x)[0]

    whole = Whole()
    names = [name for name, _ in whole.named_parameters()]

    def output(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(whole, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x, *[p.detach().requires_grad_() for p in whole.parameters()]))


def test_a_scan_sees_the_same() -> None:
    """A linear cell's projection is normalised all at once."""
    torch.manual_seed(0)
    made = MinGRU(INPUTS, H, batch_norm=3, dtype=torch.float64)
    x, lengths = torch.randn(B, T, INPUTS, dtype=torch.float64), torch.tensor([5, 2, 3, 5, 4, 5])
    found = select.unroll(made, x, lengths=lengths, backend="scan")[0]
    seen = made.statistics["ih"].mean.clone()
    made.statistics["ih"].reset()
    torch.testing.assert_close(found, select.unroll(made, x, lengths=lengths, backend="reference")[0])
    torch.testing.assert_close(made.statistics["ih"].mean, seen)


def test_statistics_are_saved_and_drawn_anew() -> None:
    made = cell()
    select.unroll(made, torch.randn(B, T, INPUTS, dtype=torch.float64))
    other = cell()
    other.load_state_dict(made.state_dict())
    torch.testing.assert_close(other.statistics["hh"].var, made.statistics["hh"].var)
    other.reset_parameters()
    assert (other.statistics["hh"].var == 1).all()
    assert (other.norm_hh == 0.1).all()


def test_where_it_cannot_run() -> None:
    with pytest.raises(ConfigError, match="one norm inside the recurrence at most; got layer_norm=True, batch_norm=3"):
        GRU(3, 4, layer_norm=True, batch_norm=3)
    with pytest.raises(ConfigError, match="batch_norm to be a positive integer"):
        GRU(3, 4, batch_norm=-1)
    x = torch.randn(4, 3, INPUTS)
    layer = Recurrent(GRU(INPUTS, H, batch_norm=3), backend="llvm")
    with pytest.raises(BackendError, match="batch_norm joins the rows of a batch"):
        layer(x)
    with pytest.raises(ConfigError, match="batch_norm=3, whose statistics belong to whole runs"):
        Recurrent(GRU(INPUTS, H, batch_norm=3), recompute=True)(x)
    layer = Recurrent(GRU(INPUTS, H, batch_norm=3)).eval()
    with pytest.raises(ConfigError, match="batch_norm=3, with statistics of each step's own"):
        layer.step(x[:, 0])
    with pytest.raises(ConfigError, match="batch_norm=3"):
        layer.stream()


def test_with_one_step_stored_a_stream_is_the_whole() -> None:
    layer = Recurrent(GRU(INPUTS, H, batch_norm=1))
    layer(torch.randn(8, 6, INPUTS))
    layer.eval()
    x = torch.randn(2, 5, INPUTS)
    stream = layer.stream(2)
    torch.testing.assert_close(torch.stack([stream(x_t) for x_t in x.unbind(1)], 1), layer(x)[0])


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 0, 3, 1, 4])], ids=["full", "ragged"])
def test_a_scan_shows_and_stores_what_the_loop_does(lengths: Tensor | None) -> None:
    x, made = torch.randn(B, T, INPUTS, dtype=torch.float64), []
    for backend in ("reference", "scan"):
        torch.manual_seed(3)
        made.append(SRU(INPUTS, H, batch_norm=3, dtype=torch.float64))
        outputs = [select.unroll(made[-1], x * k, lengths=lengths, backend=backend)[0] for k in (1, 2)]
        made.append(outputs)
    torch.testing.assert_close(made[1], made[3])
    for name, statistics in made[0].statistics.items():
        torch.testing.assert_close(made[2].statistics[name].mean, statistics.mean)
        torch.testing.assert_close(made[2].statistics[name].var, statistics.var)


def test_a_run_that_fails_leaves_nothing_to_store() -> None:
    class Failing(LSTM):
        fails = True

        def step(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
            new = super().step(x, *states)
            if self.fails:
                raise ArithmeticError
            return new

    x = torch.randn(B, T, INPUTS)
    torch.manual_seed(3)
    whole = Failing(INPUTS, H, batch_norm=1)
    broken = copy.deepcopy(whole)
    whole.fails = False
    for run in (lambda: select.unroll(broken, 9 * x), lambda: broken(9 * x[:, 0])):
        broken.fails = True
        with pytest.raises(ArithmeticError):
            run()
        broken.fails = False
        torch.testing.assert_close(select.unroll(broken, x), select.unroll(whole, x))
        torch.testing.assert_close(broken.state_dict(), whole.state_dict(), rtol=0, atol=0)
