"""Derivatives that have none themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from tidegate.errors import BackendError

Gradient = TypeVar("Gradient", bound=Tensor | None)


def without_derivative(of: str, run: Callable[[], Sequence[Gradient]], inputs: Sequence[Tensor]) -> Sequence[Gradient]:
    """Return what `run` computes from `inputs`; differentiating it raises `BackendError`."""
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in inputs)):
        return run()
    apply: Any = _Last.apply
    found: Sequence[Gradient] = apply(of, run, *inputs)
    return found


class _Last(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of: str, run: Callable[[], Sequence[Tensor | None]], *_: Tensor) -> Any:
        ctx.of = of
        return tuple(run())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise BackendError(
            f"taking a second derivative through {ctx.of}",
            expected="one derivative",
            got="a derivative of a derivative",
            hint="backend='reference' has derivatives of every order",
        )
