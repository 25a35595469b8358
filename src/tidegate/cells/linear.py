"""Linear recurrences: `h' = a⊙h + b`, with a and b known before the loop begins."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, sigmoid

from tidegate.cells.base import CELLS, Cell, State
from tidegate.cells.options import shown
from tidegate.errors import ShapeError


class Linear(Cell):
    """A cell whose carried state is linear in itself: `c' = a⊙c + b`, with a and b from the input alone.

    A subclass gives `coefficients(x) -> (a, b)` instead of `step`, and `emit` where its output is not what it
    carries. It has no recurrent products, and so no `weight_hh`.

    - `carried` = `states[-1]`, c: the one state that a step reads. With `states = ("h",)` it is also the output.
      With `states = ("h", "c")` the output h is `emit(x, c')`, and no step reads h.
    - `coefficients(x)`, `x` [..., G·H] as projected: a and b, [..., C] each, C the width of c; a may lack x's
      leading axes where it depends on parameters alone.
    - With `is_complex` the first half of c, a and b is the real and the second the imaginary part, and `a⊙c` is the
      complex product.

    `coefficients` and `emit` take any leading axes, so all of them can be had at once: a, b from x [B, T, G·H],
    then every c' by a scan over T, then every output from x and c' [B, T, C]. The pieces that they use read noise
    that is bound as `x` is laid out: [B, ·] for one step, [B, T, ·] for all. Zoneout is not in a and b: it mixes the
    states with those before, after the step.
    """

    recurrent_gates = ()
    is_complex: ClassVar[bool] = False

    @abstractmethod
    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b of `c' = a⊙c + b` from the projected input `x` [..., G·H]."""

    def emit(self, x: Tensor, c: Tensor) -> Tensor:  # noqa: ARG002
        """Return the output [..., R] from the projected input `x` [..., G·H] and the new `c` [..., C]."""
        return c

    @property
    def carried(self) -> str:
        """The name of the state that steps read."""
        return self.states[-1]

    def affine(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `coefficients(x)`; raise `ShapeError` where it is anything but a and b as they have to be."""
        found: object = self.coefficients(x)
        size = self.state_sizes[-1]
        fits = isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(each, Tensor) for each in found)
        if not fits or found[0].shape[-1:] != (size,) or found[1].shape != (*x.shape[:-1], size):  # type: ignore[index]
            raise ShapeError(
                f"running {type(self).__name__}",
                expected=f"coefficients(x) to give a and b, {[*x.shape[:-1], size]} each, of x {list(x.shape)}",
                got=shown(found),
                hint=f"{self.carried} has {size} units: state_sizes says otherwise where it should have others",
            )
        return found  # type: ignore[return-value]

    def step(self, x: Tensor, *states: Tensor) -> State:
        a, b = self.affine(x)
        c = self.scaled(a, states[-1]) + b
        return c if len(self.states) == 1 else (self.emit(x, c), c)

    def scaled(self, a: Tensor, c: Tensor) -> Tensor:
        """Return `a⊙c`, the complex product where `is_complex`."""
        if not self.is_complex:
            return a * c
        (a_re, a_im), (c_re, c_im) = a.chunk(2, -1), c.chunk(2, -1)
        return torch.cat([a_re * c_re - a_im * c_im, a_re * c_im + a_im * c_re], -1)


@CELLS.add("mingru")
class MinGRU(Linear):
    """Minimal GRU: gate and candidate look at the input alone.

        z = σ(W_z x + b_z)    n = W_n x + b_n
        h' = (1−z)⊙h + z⊙n

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024 (2410.01201), section 3.1. No deviation: the form without
    its log-space trick, which would need n > 0.
    """

    gates = ("z", "n")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, n = self.split(x)
        return sigmoid(-z), sigmoid(z) * self.candidate(n)


@CELLS.add("minlstm")
class MinLSTM(Linear):
    """Minimal LSTM: gates and candidate look at the input alone, and the gates sum to one.

        i, f = σ(W_• x + b_•)    n = W_n x + b_n
        h' = f/(f+i)⊙h + i/(f+i)⊙n

    Source: Feng, Tung, Ahmed, Bengio & Hajimirsadeghi 2024 (2410.01201), section 3.2, the length-independent
    form. No deviation.
    """

    gates = ("f", "i", "n")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f, i, n = self.split(x)
        f, i = sigmoid(f), sigmoid(i)
        whole = f + i
        return f / whole, i / whole * self.candidate(n)


@CELLS.add("qrnn")
class QRNN(Linear):
    """Quasi-recurrent network, fo-pooling, with a convolution one step wide.

        n = tanh(W_n x + b_n)    f, o = σ(W_• x + b_•)
        c' = f⊙c + (1−f)⊙n       h' = o⊙c'

    Source: Bradbury, Merity, Xiong & Socher 2016 (1611.01576), equations 1 and 4. Deviations: kernel width 1 (its
    filters of width k read k inputs: give x the k−1 before it as further columns); biases.
    """

    gates = ("n", "f", "o")
    states = ("h", "c")

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, f, _ = self.split(x)
        return sigmoid(f), sigmoid(-f) * self.candidate(torch.tanh(n))

    def emit(self, x: Tensor, c: Tensor) -> Tensor:
        return sigmoid(self.split(x)[2]) * c


@CELLS.add("sru")
class SRU(Linear):
    """Simple recurrent unit, with a highway from the input to the output.

        n = W_n x + b_n           f, r = σ(W_• x + b_•)
        c' = f⊙c + (1−f)⊙n        h' = r⊙tanh(c') + (1−r)⊙(W_p x + b_p)

    Source: Lei, Zhang & Artzi 2017 (1709.02755, first version), equations 3 to 7. The later version's v⊙c inside
    the gates is left out, with it the recurrence would not be linear. Deviations: the highway reads a projection of
    x, as in the paper where the sizes differ; biases in n and in the highway.
    """

    gates = ("n", "f", "r", "p")
    states = ("h", "c")
    normed_values = ("c",)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, f, _, _ = self.split(x)
        return sigmoid(f), sigmoid(-f) * self.candidate(n)

    def emit(self, x: Tensor, c: Tensor) -> Tensor:
        _, _, r, p = self.split(x)
        r = sigmoid(r)
        return r * torch.tanh(self.normed("c", c)) + (1 - r) * p
