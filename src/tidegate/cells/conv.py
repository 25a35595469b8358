"""Cells of frames: their products are convolutions over space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate.cells.base import Cell, State
from tidegate.cells.elman import Elman
from tidegate.cells.gru import GRUResetBefore
from tidegate.cells.lstm import LSTM
from tidegate.cells.options import check_size, choice
from tidegate.cells.peephole import LSTMPeephole
from tidegate.errors import ConfigError, ShapeError
from tidegate.registry import Registry
from tidegate.shapes import frames_to_rows, rows_to_frames

Sizes: TypeAlias = int | Sequence[int]

FRAME_CELLS: Registry[type[Convolutional]] = Registry("cell of frames")
"""Apart from `CELLS`: these must be told how large a frame is."""

_CONVOLUTIONS: tuple[Callable[..., Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)


class Convolutional(Cell):
    """A cell of frames [B, C, *space], 1-D to 3-D: what is a product in the cell it is mixed into is a convolution.

        class ConvMGU(Convolutional, MGU): ...        ConvMGU(3, 16, size=(28, 28))

    Every place of a frame is a row, and only products mix them: a step sees `x` [B·places, G·H] and states
    [B·places, H], so that whatever is done to rows is done to each place by itself. Zoneout and dropout draw a mask
    for every channel of every place; layer and RMS norm are taken over the channels of one place, batch norm over the
    rows and places of one channel; a matrix (`linear`) is one for all places, and what a step makes of `weight_hh` it
    makes tap by tap. `forward`, and `Recurrent`, take frames and give frames.

    - `input_size`, `hidden_size`: channels. `size`: of the space; its length for 1-D, one for each axis for more.
    - `kernel_size`, odd, and `dilation`: one number, or one for each axis. `weight_ih` is [G·H, C, *kernel_size] and
      `weight_hh` [G'·H, R, *kernel_size]: a gate sees what is up to `dilation·(kernel_size − 1)/2` places away.
      Parameters are drawn from U(±1/√(H·K)), K the places of a kernel.
    - `padding_mode`: what lies outside a frame: "zeros", or with "circular" the other end of it.

    Runs on backend "reference"; the inputs of all steps are convolved in one call.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        size: Sizes,
        kernel_size: Sizes = 3,
        dilation: Sizes = 1,
        padding_mode: str = "zeros",
        **options: Any,
    ) -> None:
        axes = len(size) if isinstance(size, Sequence) else 1
        self.space_sizes = _of_axes(self, "size", size, axes)
        self.kernel_sizes = _of_axes(self, "kernel_size", kernel_size, axes)
        self.dilation = _of_axes(self, "dilation", dilation, axes)
        self.padding_mode = choice(self, "padding_mode", padding_mode, ("zeros", "circular"))
        self._reach = [d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_sizes, strict=True)]
        self._check()
        super().__init__(input_size, hidden_size, **options)

    @classmethod
    def registered(cls) -> str:
        """Return the name this class has in `FRAME_CELLS`; one without a name gets its own."""
        return FRAME_CELLS.name_of(cls)

    def _check(self) -> None:
        doing = f"building {type(self).__name__}"
        if not 1 <= len(self.space_sizes) <= len(_CONVOLUTIONS):
            raise ConfigError(
                doing, expected="1 to 3 axes of space", got=f"size={self.space_sizes}", hint="size=(28, 28)"
            )
        if any(k % 2 == 0 for k in self.kernel_sizes):
            raise ConfigError(
                doing, expected="an odd kernel_size: a place is in the middle of what it sees",
                got=f"kernel_size={self.kernel_sizes}", hint="kernel_size=3",
            )  # fmt: skip
        if self.padding_mode == "circular" and any(r > s for r, s in zip(self._reach, self.space_sizes, strict=True)):
            raise ConfigError(
                doing, expected=f"a kernel that goes round at most once: a reach of at most {self.space_sizes}",
                got=f"{tuple(self._reach)}, dilation·(kernel_size−1)/2", hint="a smaller kernel_size= or dilation=",
            )  # fmt: skip

    def linear(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the convolution of frames `v`, [B·places, C] or [B·places, T, C], in rows; `weight v` for a matrix."""
        if weight.dim() == 2:
            return super().linear(v, weight, bias)
        places, axes = math.prod(self.space_sizes), len(self.space_sizes)
        if len(v) % places:
            raise ShapeError(
                f"running {type(self).__name__}", expected=f"whole frames, {places} rows each", got=f"{len(v)} rows",
                hint="frames go through Recurrent(cell), or the cell itself",
            )  # fmt: skip
        rows, steps = len(v), v.shape[1:-1]
        v = torch.unflatten(v, 0, (-1, *self.space_sizes))
        if steps:
            v = v.movedim(-2, 0).flatten(0, 1)
        y = self._convolved(v.movedim(-1, 1), weight, bias).to(weight.dtype).movedim(1, -1).flatten(0, axes)
        return torch.unflatten(y, 0, (*steps, rows)).transpose(0, 1) if steps else y

    def _convolved(self, frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self._reach
        if self.padding_mode == "circular":
            frames = F.pad(frames, [r for reach in reversed(padding) for r in (reach, reach)], mode="circular")
            padding = [0] * len(padding)
        convolve = _CONVOLUTIONS[len(padding) - 1]
        return convolve(frames, weight, bias, padding=padding, dilation=self.dilation)

    def forward(self, x: Tensor, state: State | None = None, **inputs: Tensor) -> tuple[Tensor, State]:
        """Run one step on a frame `x` [B, C, *space]; return the output and the new state, frames as well."""
        inputs = {name: each.repeat_interleave(math.prod(self.space_sizes), 0) for name, each in inputs.items()}
        if state is not None:
            state = self.pack(tuple(map(self._rows, self.unpack(state), self.state_sizes)))
        y, state = super().forward(self._rows(x, self.input_size), state, **inputs)
        after = self.pack(tuple(rows_to_frames(s, self.space_sizes) for s in self.unpack(state)))
        return rows_to_frames(y, self.space_sizes), after

    def _rows(self, frames: Tensor, channels: int) -> Tensor:
        if frames.shape[1:] != (channels, *self.space_sizes):
            raise ShapeError(
                f"one step of {type(self).__name__}",
                expected=f"frames of shape [B, {', '.join(map(str, (channels, *self.space_sizes)))}]",
                got=f"shape {list(frames.shape)}", hint="give one step; Recurrent(cell) runs whole sequences",
            )  # fmt: skip
        return frames_to_rows(frames, len(self.space_sizes))


def _of_axes(owner: object, name: str, sizes: Sizes, axes: int) -> tuple[int, ...]:
    given = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,) * axes
    if len(given) != axes:
        raise ConfigError(
            f"building {type(owner).__name__}", expected=f"{name} to be a number, or one for each of {axes} axes",
            got=repr(sizes), hint=f"{name}=3",
        )  # fmt: skip
    return tuple(check_size(owner, name, each) for each in given)


@FRAME_CELLS.add("conv_rnn")
class ConvRNN(Convolutional, Elman):
    """Elman's simple recurrent network over frames: `h' = f(W_ih∗x + b_ih + W_hh∗h + b_hh)`.

    ∗ is a convolution over space. `activation` and `output_size` are those of `Elman`; the output layer is one matrix
    for all places.

    Source: Elman 1990, Finding Structure in Time, with the convolutions of Shi et al. 2015 (1506.04214) for products.
    """


@FRAME_CELLS.add("conv_lstm")
class ConvLSTM(Convolutional, LSTMPeephole):
    """Convolutional long short-term memory with Hadamard peepholes; the output gate looks at the new cell state.

        i = σ(W_i∗x + U_i∗h + p_i⊙c + b_i)    f = σ(W_f∗x + U_f∗h + p_f⊙c + b_f)
        g = tanh(W_g∗x + U_g∗h + b_g)         c' = f⊙c + i⊙g
        o = σ(W_o∗x + U_o∗h + p_o⊙c' + b_o)   h' = o⊙tanh(c')

    ∗ is a convolution over space; p_i, p_f and p_o are `weight_ci`, `weight_cf` and `weight_co` [H, *space], a weight
    for each channel at each place. `candidate_peephole` and `stop_gradient` are those of `LSTMPeephole`.

    Source: Shi, Chen, Wang, Yeung, Wong & Woo 2015 (1506.04214), equation 3. Deviation: two bias vectors.
    """

    def _peephole_shape(self) -> tuple[int, ...]:
        return (self.hidden_size, *self.space_sizes)

    def _look(self, gate: str, c: Tensor) -> Tensor:
        weight: Tensor = getattr(self, f"weight_c{gate}")
        places = weight.flatten(1).t()
        return (torch.unflatten(c, 0, (-1, len(places))) * places).flatten(0, 1)


@FRAME_CELLS.add("conv_lstm_plain")
class ConvLSTMPlain(Convolutional, LSTM):
    """Convolutional long short-term memory without peepholes: all places of a frame have the same weights.

        i, f, o = σ(W_•∗x + U_•∗h + b_•)    g = tanh(W_g∗x + U_g∗h + b_g)
        c' = f⊙c + i⊙g                      h' = o⊙tanh(c')

    ∗ is a convolution over space. `proj_size` is that of `LSTM`: one matrix for all places.

    Source: Shi et al. 2015 (1506.04214), equation 3, without its peepholes. Deviation: two bias vectors.
    """


@FRAME_CELLS.add("conv_gru")
class ConvGRU(Convolutional, GRUResetBefore):
    """Convolutional gated recurrent unit, reset before the convolution.

        r = σ(W_r∗x + U_r∗h + b_r)    z = σ(W_z∗x + U_z∗h + b_z)
        n = tanh(W_n∗x + U_n∗(r⊙h) + b_n)
        h' = (1−z)⊙h + z⊙n

    ∗ is a convolution over space; z lets the new in.

    Source: Ballas, Yao, Pal & Courville 2016 (1511.06432), section 3.1. Deviations: biases, two of them.
    """
