"""Stacks of unlike layers: recurrent ones among convolutions and Transformer blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.options import check_size, choice, probability
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.inputs import check_batch_first, check_input, first_dtype
from tidegate.nn.multihead import MultiheadAttention
from tidegate.nn.recurrent import Recurrent
from tidegate.shapes import check_lengths, zero_padding

STEPWISE = (nn.Linear, nn.Identity, nn.Dropout, nn.AlphaDropout, nn.Embedding)
"""Of torch's layers those that treat every step by itself, beside activations and norms of one axis."""

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
ACTIVATIONS = "torch.nn.modules.activation"

HINT = "batch first, a row a sequence"


class TransformerBlock(nn.Module):
    """Self-attention and a network of each step, both added to what they read: `y = block(x, lengths=lengths)`.

        a = x + attention(LN(x))        y = a + W_2 f(W_1 LN(a) + b_1) + b_2

    - `size`: of a step, a multiple of `heads`. `hidden_size`: of the network inside, 4 times that unless given.
    - `causal`: step t attends to steps 0..t only. `dropout`: on both results, inside the network, and on the weights.

    Source: Vaswani et al. 2017 (1706.03762), with the norms inside as in Xiong et al. 2020 (2002.04745), figure 1b;
    results are `torch.nn.TransformerEncoderLayer(norm_first=True)`'s with the same weights.
    """

    def __init__(
        self,
        size: int,
        heads: int = 4,
        *,
        hidden_size: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        activation: Callable[[Tensor], Tensor] = F.gelu,
    ) -> None:
        super().__init__()
        check_size(self, "size", size)
        if size % check_size(self, "heads", heads):
            raise ConfigError(
                "building a TransformerBlock", expected="a size that is a multiple of heads", got=f"{size} and {heads}",
                hint=f"size={size // heads * heads or heads}",
            )  # fmt: skip
        probability("building a TransformerBlock", dropout)
        self.size, self.causal, self.activation = size, causal, activation
        width = 4 * size if hidden_size is None else check_size(self, "hidden_size", hidden_size)
        self.attention = MultiheadAttention(size, heads, dropout=dropout)
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.inner, self.outer = nn.Linear(size, width), nn.Linear(width, size)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return [B, T, D] from `x` [B, T, D], exactly 0 beyond `lengths`."""
        check_input(x, "B, T", self.size, first_dtype(self), doing="running a Transformer block", name="x", hint=HINT)
        if lengths is not None:
            lengths = check_lengths(lengths, *x.shape[:2]).to(x.device)
            x = zero_padding(x, lengths)
        mixed, _ = self.attention(self.norms[0](x), lengths=lengths, causal=self.causal)
        x = x + self.drop(mixed)
        x = x + self.drop(self.outer(self.drop(self.activation(self.inner(self.norms[1](x))))))
        return x if lengths is None else zero_padding(x, lengths)


class Convolution(nn.Module):
    """Convolve over time: `y = f(Σ_k W_k x_{t + (k − centre) dilation} + b)`, `y = convolution(x, lengths=lengths)`.

    The result is as long as `x`; what lies before a row's first step and behind its last real one counts as 0, or with
    `padding_mode="circular"` is the row again: its last real step comes before its first. With `causal` the window ends
    at its own step, else it lies around it; where both meet, the first steps' windows reach back to the last steps.
    """

    def __init__(
        self,
        input_size: int,
        size: int,
        width: int = 3,
        *,
        dilation: int = 1,
        causal: bool = False,
        padding_mode: str = "zeros",
        activation: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        for name, given in (("input_size", input_size), ("size", size), ("width", width), ("dilation", dilation)):
            check_size(self, name, given)
        self.input_size, self.activation = input_size, activation
        self.padding_mode = choice(self, "padding_mode", padding_mode, ("zeros", "circular"))
        before = dilation * (width - 1) if causal else dilation * (width - 1) // 2
        self._around = (before, dilation * (width - 1) - before)
        self.convolution = nn.Conv1d(input_size, size, width, dilation=dilation)

    def forward(self, x: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return [B, T, size] from `x` [B, T, input_size], exactly 0 beyond `lengths`."""
        dtype = self.convolution.weight.dtype
        check_input(x, "B, T", self.input_size, dtype, doing="running a convolution", name="x", hint=HINT)
        if lengths is not None:
            lengths = check_lengths(lengths, *x.shape[:2]).to(x.device)
            x = zero_padding(x, lengths)
        if not x.shape[1]:
            return x.new_zeros(len(x), 0, self.convolution.out_channels)
        padded = self._round(x, lengths) if self.padding_mode == "circular" else F.pad(x, (0, 0, *self._around))
        y = self.activation(self.convolution(padded.transpose(1, 2))).transpose(1, 2)
        return y if lengths is None else zero_padding(y, lengths)

    def _round(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Return each row going on at both ends as it does at the other."""
        batch, steps = x.shape[:2]
        before, after = self._around
        around = torch.arange(-before, steps + after, device=x.device)
        period = steps if lengths is None else lengths.clamp(min=1)[:, None]
        at = around.remainder(period).expand(batch, -1)
        return x[torch.arange(batch, device=x.device)[:, None], at]


class Stack(nn.Module):
    """Layers of any kind, one on the other: `output, state = stack(x, state, lengths=lengths)`.

    `x` is [B, T, ·], or tokens [B, T] where the first layer is an embedding.

    A `Recurrent` (batch first) or a stack within has a state, and its entry in `state`, a tuple; every other layer has
    None there. Layers whose `forward` takes `lengths` are given them; of a pair the first is what goes on. All others,
    torch's own among them, must treat every step by itself: what they put into the padding is set to 0.

    Raises `ConfigError` for a layer without `lengths` that is made of torch's and might do more than one step at a time
    (its recurrent, attention, convolution, pooling and batch norm layers), or of layers that take lengths; and for
    one that must be told more than the sequence. `ShapeError` where the state does not fit.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            _check_layer(number, layer)
        self.layers = nn.ModuleList(layers)
        self._told = [_takes_lengths(layer) for layer in layers]

    def forward(
        self, x: Tensor, state: Sequence[Any] | None = None, *, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Return the last layer's output [B, T, ·] and each layer's state after each row's last real step."""
        count = len(self.layers)
        given = [None] * count if state is None else list(state) if isinstance(state, tuple | list) else []
        if len(given) != count:
            raise ShapeError(
                "running a stack", expected=f"a state of {count} entries, one for each layer",
                got=f"{len(given)}" if given else type(state).__name__,
                hint="pass the state as the stack returned it, or None",
            )  # fmt: skip
        tokens = isinstance(x, Tensor) and x.dim() == 2 and not x.is_floating_point()
        if not isinstance(x, Tensor) or (x.dim() < 3 and not tokens):
            raise ShapeError(
                "running a stack", expected="x of shape [B, T, ·], or integer tokens [B, T] for an embedding",
                got=f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__, hint=HINT,
            )  # fmt: skip
        if lengths is not None:
            lengths = check_lengths(lengths, *x.shape[:2]).to(x.device)
        after: list[Any] = []
        for number, before in enumerate(given):
            try:
                x, new = self._run(number, x, before, lengths)
            except ShapeError as error:
                doing = f"running layer {number} of a stack, {error.doing}"
                raise ShapeError(doing, expected=error.expected, got=error.got, hint=error.hint) from error
            after.append(new)
        return x, tuple(after)

    def _run(self, number: int, x: Tensor, before: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """Run one layer; return its output, and its state or None."""
        layer = self.layers[number]
        if _has_state(layer):
            y, after = layer(x, before, lengths=lengths)
            return y, after
        if self._told[number]:
            y = layer(x, lengths=lengths)
            return y[0] if isinstance(y, tuple) else y, None
        y = layer(x if lengths is None else zero_padding(x, lengths))
        return y if lengths is None else zero_padding(y, lengths), None


def _inner(layer: nn.Module) -> nn.Module:
    """Return the layer itself where torch's compiler has wrapped it."""
    inner: nn.Module = getattr(layer, "_orig_mod", layer)
    return inner


def _has_state(layer: nn.Module) -> bool:
    return isinstance(_inner(layer), Recurrent | Stack)


def _takes_lengths(layer: nn.Module) -> bool:
    return "lengths" in signature(_inner(layer).forward).parameters


def _check_layer(number: int, layer: nn.Module) -> None:
    if not isinstance(layer, nn.Module):
        raise ConfigError(
            f"building a stack, layer {number}", expected="a torch.nn.Module", got=repr(layer),
            hint="Stack(Recurrent(GRU(8, 16)), torch.nn.Linear(16, 4))",
        )  # fmt: skip
    inner = _inner(layer)
    if isinstance(inner, Recurrent):
        check_batch_first(inner, f"building a stack, layer {number}")
    parts = [] if _takes_lengths(inner) else inner.modules()
    mixing = [type(each).__name__ for each in parts if _may_mix(each) or (each is not inner and _takes_lengths(each))]
    if mixing:
        raise ConfigError(
            f"building a stack, layer {number}", expected="a layer that takes lengths, or treats every step by itself",
            got=" with ".join(dict.fromkeys([type(inner).__name__, mixing[0]])),
            hint="list the layers of a Sequential; tidegate.nn has attention, Convolution and BatchNorm",
        )  # fmt: skip
    if more := _needed(inner):
        raise ConfigError(
            f"building a stack, layer {number}", expected="a layer that needs nothing beside the sequence",
            got=f"{type(inner).__name__}, which needs {', '.join(more)}",
            hint="a module of your own whose forward(x, lengths=None) calls it",
        )  # fmt: skip


def _needed(layer: nn.Module) -> list[str]:
    """Return what a layer must be told beside the sequence."""
    parameters = list(signature(layer.forward).parameters.values())[1:]
    whatever = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in whatever]


def _may_mix(layer: nn.Module) -> bool:
    """Whether a layer of torch's own may do more than one step of [B, T, ·] at a time, or take steps for channels."""
    of = type(layer).__module__
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return len(layer.normalized_shape) > 1
    if isinstance(layer, (*STEPWISE, *CONTAINERS)) or not of.startswith("torch.nn.modules."):
        return False
    if of != ACTIVATIONS or isinstance(layer, nn.MultiheadAttention | nn.Softmax2d):
        return True
    by_channel = isinstance(layer, nn.PReLU) and layer.num_parameters > 1
    return by_channel or getattr(layer, "dim", -1) not in (-1, 2)
