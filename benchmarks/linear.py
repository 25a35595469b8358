"""Linear recurrences over long sequences: a scan against copying, a minGRU layer against its loop and stock torch.

    python benchmarks/linear.py [--steps 16384] [--input-size 16] [--rounds 5]

Prints, for B=8, H=256, float32 and training (forward and backward):

- the recurrence alone (coefficients in, states out, and its derivative) as a multiple of copying a, b, h, dh, da and
  db once each, into memory that is there (`copy_`) and into new memory (`clone`);
- a whole minGRU layer against two loops in PyTorch: the whole step at each `x[:, t]`, whose gradient is as large as x
  every time, and one over `unbind`, with the input product of all steps before it;
- the same layer against a log-space cumulative sum in stock torch operations (Heinsen 2023, 2311.06281).

Rounds are interleaved; the least time of each counts. Results are compared with the loop before they are timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.cells import CELLS, Cell
from tidegate.compile import reference
from tidegate.compile.call import Call
from tidegate.compile.linear import linear_recurrence
from tidegate.nn import Recurrent

BATCH, HIDDEN = 8, 256
COMPARED = 1024
"""Steps over which results are compared before they are timed."""


def by_logcumsumexp(cell: Cell, x: Tensor) -> Tensor:
    """minGRU as its authors write it: candidates made positive, the scan a cumulative sum of logarithms."""
    z, n = cell.split(cell.project(x))
    log_a, log_n = -F.softplus(z), torch.where(n >= 0, (F.relu(n) + 0.5).log(), -F.softplus(-n))
    total = log_a.cumsum(1)
    return (total + torch.logcumsumexp(-F.softplus(-z) + log_n - total, 1)).exp()


def positive_loop(cell: Cell, x: Tensor) -> Tensor:
    """What `by_logcumsumexp` computes, step by step."""
    z, n = cell.split(cell.project(x))
    n, h, outputs = torch.where(n >= 0, n + 0.5, torch.sigmoid(n)), torch.zeros(x.shape[0], z.shape[2]), []
    for z_t, n_t in zip(torch.sigmoid(z).unbind(1), n.unbind(1), strict=True):
        h = (1 - z_t) * h + z_t * n_t
        outputs.append(h)
    return torch.stack(outputs, 1)


def indexing_loop(cell: Cell, x: Tensor) -> Tensor:
    """The whole step at each `x[:, t]`, as a loop over a cell does it."""
    h, outputs = torch.zeros(x.shape[0], HIDDEN), []
    for t in range(x.shape[1]):
        z, n = F.linear(x[:, t], cell.weight_ih, cell.bias_ih).chunk(2, -1)
        z = torch.sigmoid(z)
        h = (1 - z) * h + z * n
        outputs.append(h)
    return torch.stack(outputs, 1)


def trained(run: Callable[[Tensor], Tensor], cell: Cell, x: Tensor, dh: Tensor) -> list[Tensor]:
    """Return the outputs and the gradients of the input and the weights."""
    outputs = run(x)
    return [outputs.detach(), *torch.autograd.grad(outputs, [x, *cell.parameters()], dh)]


def compare(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, wanted, strict=True):
        error = ((one - other).abs().max() / other.abs().max()).item()
        assert error < tolerance, f"differs by {error:.1e}"


def least(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least seconds of each over interleaved rounds, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = perf_counter()
            run()
            found[name].append(perf_counter() - start)
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def recurrence_alone(steps: int, rounds: int) -> None:
    a, b, dh = (torch.rand(BATCH, steps, HIDDEN) for _ in range(3))
    a.requires_grad_()
    b.requires_grad_()
    h0 = torch.zeros(BATCH, HIDDEN)

    def scanned() -> tuple[Tensor, ...]:
        h, _ = linear_recurrence(a, b, h0)
        return (h.detach(), *torch.autograd.grad(h, [a, b], dh))

    h, da, db = scanned()
    everything = [a.detach(), b.detach(), h, dh, da, db]
    there = [torch.zeros_like(h) for _ in everything]
    seconds = least(
        {
            "scan": scanned,
            "copy_": lambda: [new.copy_(old) for new, old in zip(there, everything, strict=True)],
            "clone": lambda: [old.clone() for old in everything],
        },
        rounds,
    )
    print(f"recurrence B={BATCH} H={HIDDEN} T={steps}: {seconds['scan'] * 1e3:.0f} ms forward and backward")
    for name in ("copy_", "clone"):
        print(f"  {seconds['scan'] / seconds[name]:.2f} × {name} of a, b, h, dh, da, db ({seconds[name] * 1e3:.0f} ms)")


def whole_layer(steps: int, input_size: int, rounds: int) -> None:
    cell = CELLS["mingru"](input_size, HIDDEN)
    x = torch.randn(BATCH, steps, input_size, requires_grad=True)
    short = x.detach()[:, :COMPARED].clone().requires_grad_()
    dh = torch.randn(BATCH, steps, HIDDEN)

    layer = Recurrent(cell)

    def whole(x: Tensor) -> Tensor:
        return layer(x)[0]

    def looped(x: Tensor) -> Tensor:
        return reference.unroll(Call(cell, x)).outputs

    def indexed(x: Tensor) -> Tensor:
        return indexing_loop(cell, x)

    def stock(x: Tensor) -> Tensor:
        return by_logcumsumexp(cell, x)

    few, few_dh = short.detach()[:, :64].clone().requires_grad_(), dh[:, :64]
    exact = trained(looped, cell, short, dh[:, :COMPARED])
    compare(trained(whole, cell, short, dh[:, :COMPARED]), exact, 2e-5)
    compare(trained(indexed, cell, short, dh[:, :COMPARED]), exact, 2e-5)
    compare(trained(stock, cell, few, few_dh), trained(lambda x: positive_loop(cell, x), cell, few, few_dh), 1e-3)
    seconds = least(
        {
            "layer": lambda: trained(whole, cell, x, dh),
            "indexing": lambda: trained(indexed, cell, x, dh),
            "loop": lambda: trained(looped, cell, x, dh),
            "stock": lambda: trained(stock, cell, x, dh),
            "product": lambda: trained(cell.project, cell, x, torch.cat([dh, dh], 2)),
        },
        rounds,
    )
    print(f"minGRU layer, I={input_size}, trained: {seconds['layer'] * 1e3:.0f} ms")
    print(f"  its input product alone, forward and backward: {seconds['product'] * 1e3:.0f} ms")
    for name, against in (
        ("indexing", "a loop of whole steps, each on x[:, t]"),
        ("loop", "a loop over x.unbind(1), its input product before it"),
        ("stock", "log-space cumulative sums"),
    ):
        print(f"  {seconds[name] / seconds['layer']:.1f} × faster than {against} ({seconds[name]:.2f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 16384), ("input-size", 16), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    recurrence_alone(chosen.steps, chosen.rounds)
    whole_layer(chosen.steps, chosen.input_size, chosen.rounds)


if __name__ == "__main__":
    main()
