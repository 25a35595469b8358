"""A layer on a stream: one step at a time, the state kept where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tidegate.compile.stepping import Stepper, Taker
from tidegate.errors import ShapeError
from tidegate.nn.states import StackState, each_tensor, tensors_of

if TYPE_CHECKING:
    from tidegate.nn.recurrent import Recurrent


# Looked up once: a step is so short that more would be felt.
_is_compiling = torch.compiler.is_compiling


class Stream:
    """Run a layer step by step without gradients: `y = stream(x)`, `x` [B, I], `y` [B, O].

    The stream has the state, [layers, B, H] as the layer's, and every step overwrites it; `y` is the caller's own.
    A stream of steps gives what the whole sequence gives in evaluation, to rounding, with the weights as they are at
    each step; while the layer is in training, every step draws its noise.
    One stream is for one thread at a time. Errors are those of `Recurrent.step`.
    """

    def __init__(self, layer: Recurrent, state: StackState) -> None:
        self._layer = layer
        with torch.inference_mode(False):
            self._state = each_tensor(lambda s: s.detach().clone(), state)
            self._begun = each_tensor(lambda s: s.detach().clone(), state)
        self._tensors = tensors_of(self._state)
        self._space = layer._cells[0].space_sizes
        self._rows = self._tensors[0].shape[-2 - len(self._space)]
        self._stepper: Stepper | None = None
        self._taker: Taker | None = None
        self._prepare()

    def __getstate__(self) -> tuple[Recurrent, StackState, StackState]:
        return self._layer, self._begun, self._state

    def __setstate__(self, kept: tuple[Recurrent, StackState, StackState]) -> None:
        layer, begun, state = kept
        self.__init__(layer, begun)  # type: ignore[misc]
        self._take(state)

    @property
    def state(self) -> StackState:
        """A copy of the state as it is now."""
        return each_tensor(torch.clone, self._state)

    def reset(self, rows: Tensor | Sequence[int] | None = None) -> None:
        """Return to the state that the stream began with, in the dtype that the weights have now.

        With `rows`, booleans [B] or the numbers of some, those alone begin anew, and the others go on. Raises
        `ShapeError` where they are none of the stream's.
        """
        if rows is not None:
            self._reset_rows(_numbers(rows, self._rows))
            return
        dtype = self._layer._cells[0].weight_ih.dtype
        if dtype is self._tensors[0].dtype:
            self._take(self._begun)
        else:
            self.__init__(self._layer, each_tensor(lambda s: s.to(dtype), self._begun))  # type: ignore[misc]

    def _reset_rows(self, rows: Tensor) -> None:
        axis = -2 - len(self._space)
        for mine, begun in zip(self._tensors, tensors_of(self._begun), strict=True):
            here = rows.to(mine.device)
            mine.index_copy_(axis, here, begun.index_select(axis, here).to(mine.dtype))

    def __call__(self, x: Tensor, **inputs: Tensor) -> Tensor:
        """Take one step; return the output."""
        taker = self._taker
        if taker is not None and not (inputs or _is_compiling()):
            # `_every_cell`, without a call more: a step is so short that it would be felt.
            cells = self._layer._modules["cells"]._modules  # type: ignore[union-attr]
            y = taker.take(cells, x)
            if y is None and taker.follows(cells):  # type: ignore[arg-type]
                y = taker.take(cells, x)
            if y is not None:
                return y
        if isinstance(x, Tensor) and x.dim() == 2 + len(self._space) and x.shape[0] != self._rows:
            raise ShapeError(
                "taking a step of a stream",
                expected=f"x of shape {[self._rows, self._layer.input_size, *self._space]}, a row for each it has",
                got=f"shape {list(x.shape)}",
                hint="layer.stream(batch) says how many rows a stream has",
            )
        dtype = self._layer._cells[0].weight_ih.dtype
        if dtype is not self._tensors[0].dtype:
            raise ShapeError(
                "taking a step of a stream",
                expected=f"weights of {self._tensors[0].dtype}, as its state is",
                got=f"{dtype}",
                hint="stream.reset() begins anew in the weights' dtype",
            )
        with torch.no_grad():
            y, state = self._layer.step(x, self._state, **inputs)
            self._take(state)
        self._prepare()
        return y

    def _prepare(self) -> None:
        """Keep compiled steps at hand where the layer has them for a state like this."""
        stepper = self._layer._compiled_steps(self._rows)
        taker = self._taker
        if stepper is not self._stepper or (taker is not None and not taker.holds()):
            self._stepper, self._taker = stepper, None
            if stepper is not None and stepper.fits(self._tensors):
                self._taker = Taker(stepper, self._tensors, *self._layer._decides_steps())

    def _take(self, state: StackState) -> None:
        for mine, new in zip(self._tensors, tensors_of(state), strict=True):
            mine.copy_(new)


def _numbers(rows: object, count: int) -> Tensor:
    """Return the numbers of the rows that are meant, of `count`; or raise `ShapeError`."""
    try:
        given = torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError):
        given = torch.empty(())
    if given.dtype is torch.bool and given.shape == (count,):
        return given.nonzero()[:, 0]
    whole = given.dtype in (torch.int64, torch.int32) or not given.numel()
    if given.dim() == 1 and whole and ((given >= 0) & (given < count)).all():
        return given.long()
    raise ShapeError(
        "resetting rows of a stream",
        expected=f"{count} booleans, or numbers of rows, 0 to {count - 1}",
        got=f"{rows!r}",
        hint=f"stream.reset([{count - 1}]), or stream.reset() for all of them",
    )
