"""How layers are joined: what each reads, what is added to what it gives, what the stack gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tidegate.registry import Registry


def drop(y: Tensor, rate: float, lengths: Tensor | None) -> Tensor:
    """Drop units of `y` [B, T, D], or of one step [B, D], in training.

    Masks are drawn step after step over the rows that are still running, longest first: at the same seed they are
    `torch.nn`'s, packed sequences included. Where torch compiles, the values of `lengths` are not looked at.
    """
    if y.dim() == 2 or not len(y):
        return F.dropout(y, rate)
    if lengths is None or torch.compiler.is_compiling():
        return F.dropout(y.transpose(0, 1).contiguous(), rate).transpose(0, 1)
    packed = pack_padded_sequence(y, lengths.cpu().clamp(min=1), batch_first=True, enforce_sorted=False)
    kept = packed._replace(data=F.dropout(packed.data, rate))
    return pad_packed_sequence(kept, batch_first=True, total_length=y.shape[1])[0]


CONNECTIONS: Registry[type[Plain]] = Registry("connection")


class Plain(nn.Module):
    """Each layer reads the one below: `h_l = f_l(h_{l-1})`, `h_0 = x`; the last is the output.

    `widths` are what the layers give; `input_sizes` and `output_size` follow from the connection.
    """

    def __init__(self, input_size: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.input_sizes = [self.width_read(input_size, widths[:layer]) for layer in range(len(widths))]
        self.output_size = widths[-1]

    def reset_parameters(self) -> None:
        """Draw every parameter anew, as when this was built."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    @staticmethod
    def width_read(input_size: int, below: Sequence[int]) -> int:
        """Return how wide the next layer's input is, from the widths of the layers below."""
        return below[-1] if below else input_size

    def reads(self, x: Tensor, below: list[Tensor]) -> Tensor:
        """Return what the next layer reads, from the stack's input and the outputs of the layers below."""
        return below[-1] if below else x

    def joins(self, x: Tensor, below: list[Tensor], y: Tensor) -> Tensor:  # noqa: ARG002
        """Return what the next layer gives: `y`, which it computed, joined with what lies below it."""
        return y

    def gives(self, outputs: list[Tensor]) -> Tensor:
        """Return the output of the stack."""
        return outputs[-1]


@CONNECTIONS.add("residual")
class Residual(Plain):
    """`h_l = f_l(h_{l-1}) + W_s h_{l-1}` (He et al. 2016, equation 2); no `W_s` where the widths agree.

    With dropout between the layers f_l reads what is left of h_{l-1}, the sum all of it.
    """

    def __init__(self, input_size: int, widths: Sequence[int]) -> None:
        super().__init__(input_size, widths)
        self.maps = _maps(self.input_sizes, widths)

    def joins(self, x: Tensor, below: list[Tensor], y: Tensor) -> Tensor:
        carried: Tensor = self.maps[len(below)](self.reads(x, below))
        return y + carried


@CONNECTIONS.add("highway")
class Highway(Plain):
    """`h_l = t⊙f_l(x) + (1−t)⊙W_s x`, `t = σ(W_t x + b_t)`, with x = h_{l-1} and b_t = −1 at the start.

    With dropout between the layers f_l alone reads what is left of x.

    Source: Srivastava et al. 2015, equations 2–3. Deviation: a learned `W_s` where widths differ.
    """

    def __init__(self, input_size: int, widths: Sequence[int]) -> None:
        super().__init__(input_size, widths)
        self.maps = _maps(self.input_sizes, widths)
        self.gates = nn.ModuleList(nn.Linear(i, w) for i, w in zip(self.input_sizes, widths, strict=True))
        self._close()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self._close()

    def joins(self, x: Tensor, below: list[Tensor], y: Tensor) -> Tensor:
        read = self.reads(x, below)
        t = torch.sigmoid(self.gates[len(below)](read)).to(y.dtype)
        return torch.lerp(self.maps[len(below)](read).to(y.dtype), y, t)

    def _close(self) -> None:
        for gate in self.gates:
            nn.init.constant_(gate.get_parameter("bias"), -1.0)


@CONNECTIONS.add("dense")
class Dense(Plain):
    """Layer l reads `[x, h_1, …, h_{l-1}]`; the last is the output (Huang et al. 2017)."""

    @staticmethod
    def width_read(input_size: int, below: Sequence[int]) -> int:
        return input_size + sum(below)

    def reads(self, x: Tensor, below: list[Tensor]) -> Tensor:
        return torch.cat([x, *below], dim=-1)


@CONNECTIONS.add("skip")
class Skip(Plain):
    """Layer l reads `[x, h_{l-1}]`, and the output is `[h_1, …, h_L]` (Graves 2013, 1308.0850, section 2)."""

    def __init__(self, input_size: int, widths: Sequence[int]) -> None:
        super().__init__(input_size, widths)
        self.output_size = sum(widths)

    @staticmethod
    def width_read(input_size: int, below: Sequence[int]) -> int:
        return input_size + sum(below[-1:])

    def reads(self, x: Tensor, below: list[Tensor]) -> Tensor:
        return torch.cat([x, below[-1]], dim=-1) if below else x

    def gives(self, outputs: list[Tensor]) -> Tensor:
        return torch.cat(outputs, dim=-1)


def _maps(sizes: Sequence[int], widths: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Identity() if size == width else nn.Linear(size, width, bias=False)
        for size, width in zip(sizes, widths, strict=True)
    )
