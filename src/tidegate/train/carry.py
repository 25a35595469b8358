"""Truncated backpropagation through time: what a model hands on from one batch to the next."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Carry:
    """Runs a model batch after batch and, where it `carries`, hands on its state without the way it was computed.

    Such a model is called as `model(batch, state)`, returns its prediction and the state after it, a tuple of
    tensors, and gets None for a batch that `begins`. Gradients end where a batch begins, and memory does not grow
    with what came before (Williams & Peng 1990; the windows are the batches).
    """

    def __init__(self, model: Any) -> None:
        self.carries = bool(getattr(model, "carries", False))
        self.state: tuple[Tensor, ...] | None = None

    def __call__(self, model: Any, batch: Any) -> Tensor:
        if not self.carries:
            return model(batch)
        prediction, after = model(batch, None if batch.begins else self.state)
        self.state = tuple(each.detach() for each in after)
        return prediction
