"""What a step is written from: products, gates, candidates, with the norms and masks that were asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.noise import Noise, Now
from tidegate.cells.statistics import EPSILON, StepStatistics
from tidegate.errors import ConfigError


class Pieces(nn.Module):
    """The pieces of a step, over a cell's own weights; `Cell` makes the weights and runs the step."""

    gates: ClassVar[tuple[str, ...]] = ()
    recurrent_gates: ClassVar[tuple[str, ...] | None] = None

    normed_values: ClassVar[tuple[str, ...]] = ()
    """What goes through `normed`, by name."""

    space_sizes: tuple[int, ...] = ()
    """The sizes of the space whose places are rows, where a cell's inputs are frames."""
    kernel_sizes: tuple[int, ...] = ()
    """The sizes of the convolutions that its products are."""

    hidden_size: int
    layer_norm: bool
    rms_norm: bool
    batch_norm: int
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    norm_ih: Tensor
    norm_hh: Tensor
    statistics: nn.ModuleDict
    noise: Noise
    _bound: dict[str, Any]

    @property
    def spread(self) -> float:
        """The bound of what parameters are drawn from: 1/√H, of convolutions 1/√(H·K) for kernels of K places."""
        return float((self.hidden_size * math.prod(self.kernel_sizes)) ** -0.5)

    @contextmanager
    def bound(self, given: dict[str, Any]) -> Iterator[None]:
        """Let the pieces read `given` by name."""
        before, self.__dict__["_bound"] = self._bound, given  # which changes nothing about the cell itself
        try:
            yield
        finally:
            self.__dict__["_bound"] = before

    @property
    def _recurrent(self) -> tuple[str, ...]:
        return self.gates if self.recurrent_gates is None else self.recurrent_gates

    def linear(self, v: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return `weight v + bias` in the weight's dtype, also where autocast computes it in a shorter one."""
        return F.linear(v, weight, bias).to(weight.dtype)

    def project(self, x: Tensor) -> Tensor:
        """Return `W_ih x + b_ih`, the inputs' part of every gate: [B, T, I] -> [B, T, G·H] in one product."""
        mask = self._bound.get("input_mask")
        if mask is not None:
            x = x * mask
        return self._affine(x, self.weight_ih, self.bias_ih, "ih", slice(None))

    def split(self, v: Tensor) -> tuple[Tensor, ...]:
        """Return `v` [B, G·H] as one [B, H] for each gate, in the order of `gates`."""
        return v.chunk(len(self.gates), -1)

    def gate(self, x: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """Return each gate before its activation, [B, H]: projected input + `W_hh h + b_hh`, where it has a product."""
        if self._recurrent == self.gates:
            return self.split(x + self._product(h))
        parts, products = self.products(x, h)
        recurrent = dict(zip(self._recurrent, products, strict=True))
        return tuple(p + recurrent[g] if g in recurrent else p for g, p in zip(self.gates, parts, strict=True))

    def products(self, x: Tensor, h: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the two parts apart: each gate's projected input, and `W_hh h + b_hh` of each recurrent gate."""
        return self.split(x), self._product(h).chunk(len(self._recurrent), -1)

    def recurrent(self, name: str, v: Tensor, *, bias: bool = True, weight: Tensor | None = None) -> Tensor:
        """Return one gate's product inside the step, `W_hh[name] v + b_hh[name]`, [B, H].

        `weight` [H, R], a function of parameters (`recurrent_weight` among them), stands in for `W_hh[name]`.
        """
        return self._product(v, self.recurrent_rows(name), bias=bias, weight=weight)

    def recurrent_bias(self, name: str) -> Tensor | float:
        """Return `b_hh[name]` [H], for a step that must add it apart from the product; 0.0 without bias."""
        return 0.0 if self.bias_hh is None else self.bias_hh[self.recurrent_rows(name)]

    def rows(self, name: str) -> slice:
        """Return the rows of `weight_ih` and `bias_ih` that belong to one gate."""
        return self._rows_among(self.gates, name)

    def recurrent_rows(self, name: str) -> slice:
        """Return the rows of `weight_hh` and `bias_hh` that belong to one gate."""
        return self._rows_among(self._recurrent, name)

    def _rows_among(self, gates: tuple[str, ...], name: str) -> slice:
        if name not in gates:
            raise ConfigError(
                f"reading the weights of a gate of {type(self).__name__}",
                expected=f"one of {', '.join(map(repr, gates)) or 'none'}",
                got=repr(name),
                hint=f'gates = (…, "{name}") or recurrent_gates = (…, "{name}") on the class',
            )
        start = gates.index(name) * self.hidden_size
        return slice(start, start + self.hidden_size)

    def _product(
        self, v: Tensor, rows: slice | None = None, *, bias: bool = True, weight: Tensor | None = None
    ) -> Tensor:
        mask = self._bound.get("hidden_mask")
        if mask is not None:
            v = v * mask
        b = self.bias_hh if bias else None
        if rows is not None:
            b = None if b is None else b[rows]
            weight = self.recurrent_weight[rows] if weight is None else weight
        return self._affine(v, self.recurrent_weight if weight is None else weight, b, "hh", rows or slice(None))

    @property
    def recurrent_weight(self) -> Tensor:
        """`weight_hh` as this run has it, with DropConnect if asked for."""
        mask = self._bound.get("weight_mask")
        return self.weight_hh if mask is None else self.weight_hh * mask

    @property
    def normalises(self) -> bool:
        """Whether products and `normed_values` are normalised."""
        return self.layer_norm or self.rms_norm or self.batch_norm > 0

    def _affine(self, v: Tensor, weight: Tensor, bias: Tensor | None, name: str, units: slice) -> Tensor:
        if not self.normalises:
            return self.linear(v, weight, bias)
        normed = self._normalised(self.linear(v, weight), name, units)
        return normed if bias is None else normed + bias

    def _normalised(self, v: Tensor, name: str, units: slice, bias: Tensor | None = None) -> Tensor:
        """Return `v` normalised, times its gain, plus `bias`; `name` is the gain's, and `v` has these units of it."""
        gain: Tensor = getattr(self, f"norm_{name}")[units]
        if self.layer_norm:
            return F.layer_norm(v, gain.shape, gain, bias, EPSILON)
        if self.rms_norm:
            return v * torch.rsqrt(v.square().mean(-1, keepdim=True) + EPSILON) * gain
        normed: Tensor = self.statistics[name](v, self._bound.get("now", Now(0, None)), units) * gain
        return normed if bias is None else normed + bias

    def normed(self, name: str, v: Tensor) -> Tensor:
        """Return `v` [B, H], one of `normed_values`, normalised with its own gain (and bias) where asked for.

        Raises `ConfigError` for a name that is not among them.
        """
        if name not in self.normed_values:
            raise ConfigError(
                f"normalising {name!r} in a step of {type(self).__name__}",
                expected="a name among the class's normed_values", got=f"normed_values = {self.normed_values!r}",
                hint=f"normed_values = {(*self.normed_values, name)!r}",
            )  # fmt: skip
        if not self.normalises:
            return v
        return self._normalised(v, name, slice(None), getattr(self, f"norm_{name}_bias", None))

    def candidate(self, v: Tensor) -> Tensor:
        """Return the candidate that a step is about to write into its state, with recurrent dropout if asked for."""
        mask = self._bound.get("candidate_mask")
        return v if mask is None else v * mask

    def begin(self) -> None:
        """Begin a run: what one that failed showed batch norm is forgotten."""
        for statistics in self._all_statistics():
            statistics.begin()

    def settle(self) -> None:
        """Let batch norm's statistics move by what this run showed."""
        for statistics in self._all_statistics():
            statistics.settle()

    def _all_statistics(self) -> list[StepStatistics]:
        return [m for m in self.modules() if isinstance(m, StepStatistics)] if self.batch_norm else []

    def gate_blocks(self) -> dict[str, int]:
        """Return the parameters that are matrices of gates, and how many gates lie along their rows."""
        blocks = {"weight_ih": len(self.gates), "weight_hh": len(self._recurrent)}
        return {
            name: count for name, count in blocks.items() if count and isinstance(getattr(self, name), nn.Parameter)
        }

    @property
    def altered(self) -> bool:
        """Whether this is more than its plain equation: normalised, or noisy as it stands (training or not)."""
        return self.normalises or any(self.noise.zoneout) or (self.training and self.noise.draws)
