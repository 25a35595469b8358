"""What a network's recurrent layers add to the loss: small outputs, slow ones, gradients that keep their norm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from tidegate.cells.options import is_number
from tidegate.errors import ConfigError
from tidegate.nn.inputs import read_lengths
from tidegate.nn.omega import Recorder, omega
from tidegate.nn.recurrent import Recurrent
from tidegate.shapes import length_mask

Seen = tuple[Tensor, Tensor | None, Tensor | None]
"""Outputs [B, T, O], lengths [B] and resets [B, T]."""


class Regulariser:
    """Add terms to a loss: `with r.watching(): prediction = model(x)`, then `loss = r(loss)`.

        loss + α·mean(h_t²) + β·mean((h_t − h_{t+1})²) + γ·Ω

    with h [B, T, O] the output of the last recurrent layer that ran, the means over units and a batch's real steps, or
    the pairs of them that follow one another; and Ω that of every cell, see `nn.omega`. `activation_l2` is α (AR),
    `activation_slowness` β (TAR), `omega` γ. The loss is the mean that is minimised. Nothing is left on the model.

    A decoder's single steps have no h, only Ω. Raises `ConfigError` where nothing ran that a term is of, or where
    `omega` meets `batch_norm`.

    Source: Merity, McCann & Socher 2017 (1708.01009), section 3. Deviations: squares are averaged, as in the authors'
    program (the paper has norms); AR sees h without the dropout mask of what reads it, which on average would
    multiply α by 1/(1 − p).
    """

    def __init__(
        self, model: nn.Module, *, activation_l2: float = 0.0, activation_slowness: float = 0.0, omega: float = 0.0
    ) -> None:
        weights = {"activation_l2": activation_l2, "activation_slowness": activation_slowness, "omega": omega}
        for name, weight in weights.items():
            if not (is_number(weight) and 0 <= weight < math.inf):
                raise ConfigError(
                    "regularising recurrent layers",
                    expected=f"{name} of at least 0",
                    got=repr(weight),
                    hint=f"{name}=0.0",
                )
        self.layers = [layer for layer in model.modules() if isinstance(layer, Recurrent)]
        self.l2, self.slowness, self.omega = activation_l2, activation_slowness, omega
        self._seen: Seen | None = None
        self._recorder = Recorder()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model's next call, made inside."""
        self._seen, self._recorder = None, Recorder()
        hooks = [layer.register_forward_hook(self._see, with_kwargs=True) for layer in self.layers]
        watched = [layer.watch for layer in self.layers]
        try:
            for layer in self.layers if self.omega else ():
                layer.watch = self._recorder
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for layer, before in zip(self.layers, watched, strict=True):
                layer.watch = before

    def __call__(self, loss: Tensor) -> Tensor:
        """Return `loss`, a mean, with the terms of what was seen."""
        seen, runs = self._seen, self._recorder.runs
        if (seen is None and (self.l2 or self.slowness)) or (self.omega and not runs):
            raise ConfigError(
                "regularising recurrent layers", expected="a run of the model that was watched",
                got="no layer that ran over sequences", hint="with regulariser.watching(): prediction = model(x)",
            )  # fmt: skip
        self._seen, self._recorder = None, Recorder()
        total = loss
        if seen is not None and self.l2:
            total = total + self.l2 * activation_l2(*seen[:2])
        if seen is not None and self.slowness:
            total = total + self.slowness * activation_slowness(*seen)
        if self.omega:
            total = total + self.omega * omega(runs, loss)
        return total

    def _see(self, layer: Recurrent, _: tuple[Any, ...], named: dict[str, Any], gave: tuple[Any, Any]) -> None:
        outputs, lengths, resets = gave[0], named.get("lengths"), named.get("resets")
        if isinstance(outputs, PackedSequence):
            outputs, lengths = pad_packed_sequence(outputs, batch_first=True)
        elif not layer.batch_first:
            outputs, resets = outputs.transpose(0, 1), None if resets is None else resets.transpose(0, 1)
        resets = None if resets is None else resets.to(outputs.device)
        self._seen = outputs.flatten(2), read_lengths(outputs, lengths), resets


def activation_l2(outputs: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the mean of `outputs²` [B, T, O] over units and real steps."""
    return _mean(outputs, None if lengths is None else length_mask(lengths, outputs.shape[1]))


def activation_slowness(outputs: Tensor, lengths: Tensor | None = None, resets: Tensor | None = None) -> Tensor:
    """Return the mean of `(h_t − h_{t+1})²` over units and pairs of real steps, a reset between two parts them."""
    pairs = None if lengths is None else length_mask(lengths - 1, outputs.shape[1] - 1)
    if resets is not None:
        pairs = ~resets[:, 1:] if pairs is None else pairs & ~resets[:, 1:]
    return _mean(outputs[:, 1:] - outputs[:, :-1], pairs)


def _mean(values: Tensor, real: Tensor | None) -> Tensor:
    """Return the mean square of `values` [B, T, O] where `real` [B, T]; 0 where there are none."""
    if real is None:
        return values.square().sum() / max(values.numel(), 1)
    return (values.square() * real[..., None]).sum() / (real.sum() * values.shape[2]).clamp(min=1)
