"""The cells that are timed. A case is Tidegate's cell, and the same equation for the peers' loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import torch
from torch import nn

from tidegate.bench.ops import Array, Ops
from tidegate.cells import GRU, LSTM, Cell, Elman, GRUResetBefore, LSTMPeephole
from tidegate.registry import Registry

Arrays: TypeAlias = dict[str, Array]
States: TypeAlias = tuple[Array, ...]


@dataclass(frozen=True)
class Mask:
    """Noise that training draws, as wide as the layer: one mask a sequence, or with `each_step` one a step.

    Entries are 0 with probability `rate` and 1 / (1 − rate) else; with `keeps`, true with probability `rate`.
    """

    name: str
    rate: float
    each_step: bool = False
    keeps: bool = False


class Case:
    """A cell to time. The equation is written once more here, as a user of PyTorch or JAX would write its loop.

    The input product is hoisted out of the loop with all biases that can be, and weights are prepared once a
    call: `inputs` gives what each step reads, `constants` what all of them do, `step` the new states, the
    output first. `w` holds the weights under the names of Tidegate's cell, and in training its `masks`.
    """

    kind: ClassVar[type[Cell]]
    options: ClassVar[dict[str, Any]] = {}
    native: ClassVar[type[nn.Module] | None] = None
    masks: ClassVar[tuple[Mask, ...]] = ()

    def cell(self, size: int) -> Cell:
        """Return Tidegate's cell, `size` wide inside and at its input."""
        return self.kind(size, size, **self.options)

    def inputs(self, f: Ops, w: Arrays, x: Array) -> States:
        """Return what steps read, [B, T, ·] each."""
        return (f.linear(x, w["weight_ih"], w["bias_ih"] + w["bias_hh"]),)

    def constants(self, w: Arrays) -> Arrays:
        """Return what every step reads."""
        return {"U": w["weight_hh"].T}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        """Return the new states [B, H] from one step of `inputs`, `constants` and the states before."""
        raise NotImplementedError


CASES: Registry[type[Case]] = Registry("cell of the benchmark")


@CASES.add("elman")
class ElmanCase(Case):
    kind = Elman
    native = nn.RNN

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        return (f.tanh(f.addmm(x[0], states[0], k["U"])),)


@CASES.add("gru")
class GRUCase(Case):
    kind = GRU
    native = nn.GRU

    def inputs(self, f: Ops, w: Arrays, x: Array) -> States:
        return (f.linear(x, w["weight_ih"], w["bias_ih"]),)

    def constants(self, w: Arrays) -> Arrays:
        return {"U": w["weight_hh"].T, "b": w["bias_hh"]}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        (h,) = states
        x_r, x_z, x_n = f.split(x[0], 3)
        h_r, h_z, h_n = f.split(f.addmm(k["b"], h, k["U"]), 3)
        n = f.tanh(x_n + f.sigmoid(x_r + h_r) * h_n)
        return (f.lerp(n, h, f.sigmoid(x_z + h_z)),)


@CASES.add("gru_reset_before")
class GRUResetBeforeCase(Case):
    kind = GRUResetBefore

    def inputs(self, f: Ops, w: Arrays, x: Array) -> States:
        (both,) = super().inputs(f, w, x)
        size = both.shape[-1] // 3
        return both[..., : 2 * size], both[..., 2 * size :]

    def constants(self, w: Arrays) -> Arrays:
        size = w["weight_hh"].shape[1]
        return {"U_rz": w["weight_hh"][: 2 * size].T, "U_n": w["weight_hh"][2 * size :].T}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        (h,) = states
        r, z = f.split(f.sigmoid(f.addmm(x[0], h, k["U_rz"])), 2)
        n = f.tanh(f.addmm(x[1], r * h, k["U_n"]))
        return (f.lerp(h, n, z),)


@CASES.add("lstm")
class LSTMCase(Case):
    kind = LSTM
    native: ClassVar[type[nn.Module] | None] = nn.LSTM

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        h, c = states
        i, forget, g, o = f.split(f.addmm(x[0], h, k["U"]), 4)
        c = f.sigmoid(forget) * c + f.sigmoid(i) * f.tanh(g)
        return f.sigmoid(o) * f.tanh(c), c


@CASES.add("lstm_layer_norm")
class LayerNormLSTMCase(Case):
    """The recurrent gains are small: with gains of 1 rounding grows a thousandfold in a hundred steps, and no two
    results could be compared."""

    kind = LSTM
    options: ClassVar[dict[str, Any]] = {"layer_norm": True}

    def cell(self, size: int) -> Cell:
        cell = super().cell(size)
        with torch.no_grad():
            cell.norm_hh.uniform_(0.2, 0.6)
        return cell

    def inputs(self, f: Ops, w: Arrays, x: Array) -> States:
        return (f.layer_norm(x @ w["weight_ih"].T, w["norm_ih"], w["bias_ih"] + w["bias_hh"]),)

    def constants(self, w: Arrays) -> Arrays:
        return {**w, "U": w["weight_hh"].T}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        h, c = states
        i, forget, g, o = f.split(x[0] + f.layer_norm(h @ k["U"], k["norm_hh"], None), 4)
        c = f.sigmoid(forget) * c + f.sigmoid(i) * f.tanh(g)
        return f.sigmoid(o) * f.tanh(f.layer_norm(c, k["norm_c"], k["norm_c_bias"])), c


@CASES.add("lstm_peephole")
class PeepholeLSTMCase(Case):
    kind = LSTMPeephole

    def constants(self, w: Arrays) -> Arrays:
        return {**w, "U": w["weight_hh"].T}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        h, c = states
        i, forget, g, o = f.split(f.addmm(x[0], h, k["U"]), 4)
        i, forget = f.sigmoid(i + k["weight_ci"] * c), f.sigmoid(forget + k["weight_cf"] * c)
        c = forget * c + i * f.tanh(g)
        return f.sigmoid(o + k["weight_co"] * c) * f.tanh(c), c


@CASES.add("lstm_noise")
class NoisyLSTMCase(LSTMCase):
    """Zoneout 0.1 on both states, variational dropout 0.3 on the input and on h."""

    native = None
    ZONEOUT, DROPOUT = 0.1, 0.3
    options: ClassVar[dict[str, Any]] = {"zoneout": ZONEOUT, "variational_dropout": DROPOUT}
    masks = (
        Mask("input_mask", DROPOUT),
        Mask("hidden_mask", DROPOUT),
        Mask("kept_h", ZONEOUT, each_step=True, keeps=True),
        Mask("kept_c", ZONEOUT, each_step=True, keeps=True),
    )

    def inputs(self, f: Ops, w: Arrays, x: Array) -> States:
        if "input_mask" not in w:
            return super().inputs(f, w, x)
        return (*super().inputs(f, w, x * w["input_mask"][:, None]), w["kept_h"], w["kept_c"])

    def constants(self, w: Arrays) -> Arrays:
        return {**w, "U": w["weight_hh"].T}

    def step(self, f: Ops, k: Arrays, x: States, states: States) -> States:
        h, c = states
        if "hidden_mask" not in k:
            new_h, new_c = super().step(f, k, x, states)
            return f.lerp(new_h, h, self.ZONEOUT), f.lerp(new_c, c, self.ZONEOUT)
        new_h, new_c = super().step(f, k, x, (h * k["hidden_mask"], c))
        return f.where(x[1], h, new_h), f.where(x[2], c, new_c)
