"""Who is timed: Tidegate, `torch.nn`, and a hand-written PyTorch loop, on the same weights and the same input."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from tidegate.bench.cases import Case, Mask, States
from tidegate.bench.ops import TORCH
from tidegate.cells import Cell
from tidegate.cells.noise import Given
from tidegate.nn import Recurrent, explain

Gradients: TypeAlias = dict[str, Tensor]
Masks: TypeAlias = dict[str, Tensor]


class Candidate(Protocol):
    """One of those compared. `timed(mode)` returns the call that is timed: a whole forward or training pass.

    `outputs` [B, T, H] are those of evaluation, `gradients` those of training, with noise given instead of
    drawn: the outputs and, by name, the gradients of x and of the weights.
    """

    name: str

    def timed(self, mode: str) -> Callable[[], object]: ...
    def outputs(self) -> Tensor: ...
    def gradients(self, masks: Masks | None) -> tuple[Tensor, Gradients]: ...


class TorchModule:
    """A candidate that is a module, `x [B, T, H] -> (outputs, state)`; weights by the names of Tidegate's cell."""

    def __init__(self, name: str, module: nn.Module, weights: dict[str, Tensor], x: Tensor, dy: Tensor) -> None:
        self.name, self.module = name, module
        self._names, self._x, self._dy = ("x", *weights), x.detach().clone().requires_grad_(), dy
        self._sources = (self._x, *weights.values())

    def timed(self, mode: str) -> Callable[[], object]:
        self.module.train(mode == "train")
        return self._forward if mode == "forward" else self._train

    def outputs(self) -> Tensor:
        self.module.eval()
        return self._forward()

    def gradients(self, masks: Masks | None) -> tuple[Tensor, Gradients]:
        self.module.train()
        self.fix(masks)
        try:
            y, found = self._train()
        finally:
            self.fix(None)
        return y.detach(), dict(zip(self._names, found, strict=True))

    def fix(self, masks: Masks | None) -> None:
        """Use these masks instead of drawing any, or draw again."""

    def _forward(self) -> Tensor:
        with torch.inference_mode():
            return self.module(self._x)[0]

    def _train(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        y = self.module(self._x)[0]
        return y, torch.autograd.grad(y, self._sources, self._dy)


class Tidegate(TorchModule):
    """`tg.nn.Recurrent(cell)` on a backend, "auto" or named."""

    def __init__(self, cell: Cell, backend: str, x: Tensor, dy: Tensor) -> None:
        name = "tidegate" if backend == "auto" else f"tidegate {backend}"
        super().__init__(name, Recurrent(cell, backend=backend), dict(cell.named_parameters()), x, dy)
        self._cell = cell

    def fix(self, masks: Masks | None) -> None:
        """Put the masks in place of `draw`; without any, leave the cell its own."""
        if masks is None:
            self._cell.__dict__.pop("draw", None)
            return
        cast = {name: mask.to(self._x.dtype) for name, mask in masks.items()}
        rows, steps = ({n: m for n, m in cast.items() if m.dim() == dim} for dim in (2, 3))
        given = Given(rows, steps, {})
        self._cell.__dict__["draw"] = lambda x: given  # noqa: ARG005

    def chosen(self, mode: str) -> str:
        """Return the backend that runs it."""
        self.module.train(mode == "train")
        with torch.inference_mode(mode == "forward"):
            return explain(self.module, self._x).verdicts[0].chosen

    def refusal(self) -> str | None:
        """Return why the named backend does not run it, or None."""
        return explain(self.module, self._x).verdicts[0].refusals[self.chosen("train")]


class TorchLoop(nn.Module):
    """The loop as a PyTorch user writes it, from fused pieces where torch has them."""

    def __init__(self, case: Case, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.case = case
        self.weights = nn.ParameterDict({name: nn.Parameter(w.detach().clone()) for name, w in weights.items()})
        self.fixed: Masks | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        read = dict(self.weights.items())
        if self.training:
            read |= self.fixed or draw(self.case.masks, x)
        constants = self.case.constants(read)
        states: States = (x.new_zeros(x.shape[0], x.shape[2]),) * len(self.case.kind.states)
        outputs = []
        for x_t in self.steps(read, x):
            states = self.case.step(TORCH, constants, x_t, states)
            outputs.append(states[0])
        return torch.stack(outputs, 1), states

    def steps(self, read: dict[str, Tensor], x: Tensor) -> Iterable[States]:
        """Give what each step reads: all are taken apart at once, which has one gradient for all of them."""
        return zip(*[each.unbind(1) for each in self.case.inputs(TORCH, read, x)], strict=True)


class Loop(TorchModule):
    """`TorchLoop`, or another kind of it, as a candidate."""

    def __init__(
        self, case: Case, weights: dict[str, Tensor], x: Tensor, dy: Tensor, *,
        name: str = "torch loop", kind: type[TorchLoop] = TorchLoop,
    ) -> None:  # fmt: skip
        self._loop = kind(case, weights)
        super().__init__(name, self._loop, dict(self._loop.weights.items()), x, dy)

    def fix(self, masks: Masks | None) -> None:
        self._loop.fixed = masks


def native(kind: type[nn.Module], weights: dict[str, Tensor], x: Tensor, dy: Tensor) -> TorchModule:
    """Return torch's own layer with the weights of the cell."""
    layer = kind(x.shape[2], x.shape[2], batch_first=True)
    own = {name: getattr(layer, f"{name}_l0") for name in weights}
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)
    return TorchModule("torch.nn", layer, own, x, dy)


def draw(masks: tuple[Mask, ...], x: Tensor) -> Masks:
    """Draw the noise of one pass over `x` [B, T, H]."""

    def one(mask: Mask) -> Tensor:
        shape = x.shape if mask.each_step else (x.shape[0], x.shape[2])
        if mask.keeps:
            return torch.empty(shape, dtype=torch.bool).bernoulli_(mask.rate)
        return torch.empty(shape, dtype=x.dtype).bernoulli_(1 - mask.rate).div_(1 - mask.rate)

    return {mask.name: one(mask) for mask in masks}
