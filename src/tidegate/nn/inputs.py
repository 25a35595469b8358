"""What a layer is given, checked once a call: input, lengths, resets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.base import Cell
from tidegate.cells.options import shown
from tidegate.compile.call import Call
from tidegate.errors import ConfigError, ShapeError
from tidegate.shapes import check_lengths, frames_to_rows, length_mask, reverse_within_lengths

FRAMES = "the cell's size= says how large frames are, input_size how many channels they have"


def check_input(
    x: object,
    axes: str,
    size: int,
    dtype: torch.dtype | None = None,
    *,
    doing: str = "running a recurrent layer",
    name: str = "input",
    hint: str = "input_size and batch_first say how the layer reads its input",
    space: tuple[int, ...] = (),
    device: torch.device | None = None,
) -> Tensor:
    """Return `x`, or raise `ShapeError` unless it is `[axes, size, *space]` of `dtype` on `device`, where one is given.

    Autocast may have another dtype.

    Axes are letters, or numbers that must be met. Without `dtype` any floating point will do.
    """
    sizes = (size, *space)
    shape = f"[{axes}, {', '.join(map(str, sizes))}]"
    if not isinstance(x, Tensor):
        raise ShapeError(
            doing,
            expected=f"{name}, a tensor of shape {shape}",
            got=f"{type(x).__name__}",
            hint=f"torch.as_tensor({'x' if name == 'input' else name}, dtype={dtype or torch.float32})",
        )
    if x.is_nested or x.layout is not torch.strided:
        raise ShapeError(
            doing,
            expected=f"{name}, a dense tensor of shape {shape}",
            got="a nested tensor" if x.is_nested else f"a tensor of layout {x.layout}",
            hint="x.to_padded_tensor(0.0), and its rows' lengths as lengths=" if x.is_nested else "x.to_dense()",
        )
    wanted = axes.split(", ")
    fits = x.dim() == len(wanted) + len(sizes) and x.shape[len(wanted) :] == sizes
    if not fits or any(n.isdigit() and int(n) != there for n, there in zip(wanted, x.shape, strict=False)):
        raise ShapeError(
            doing, expected=f"{name} of shape {shape}", got=f"shape {list(x.shape)}", hint=FRAMES if space else hint
        )
    if device is not None and x.device != device:
        raise ShapeError(
            doing,
            expected=f"{name} on {device}, where the weights are",
            got=f"a tensor on {x.device}",
            hint=f"x.to({str(device)!r}), or layer.to({str(x.device)!r})",
        )
    if dtype is None and x.is_floating_point():
        return x
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise ShapeError(
            doing,
            expected=f"{name} of " + (f"dtype {dtype}, the weights'" if dtype else "a floating point dtype"),
            got=f"dtype {x.dtype}",
            hint=f"x.to({dtype or torch.float32})" + (f", or layer.to({x.dtype})" if x.is_floating_point() else ""),
        )
    return x


def first_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of a module's weights, or None where it has none."""
    weight = next(module.parameters(), None)
    return None if weight is None else weight.dtype


def read_lengths(x: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor | None:
    """Return the lengths checked and beside `x` [B, T, …], or None when every row is full."""
    if lengths is None:
        return None
    lengths = check_lengths(lengths, x.shape[0], x.shape[1])
    known = lengths.numel() > 0 and not torch.compiler.is_compiling()
    return None if known and int(lengths.min()) == x.shape[1] else lengths.to(x.device)


def in_rows(call: Call) -> Call:
    """Return a call over frames [B, T, C, *space] as one over rows, all places of a frame in turn."""
    space = call.cell.space_sizes
    if not space:
        return call
    given = call.given._replace(steps={name: _each_place(v, space) for name, v in call.given.steps.items()})
    lengths = None if call.lengths is None else _each_place(call.lengths, space)
    resets = None if call.resets is None else _each_place(call.resets, space)
    return call._replace(x=frames_to_rows(call.x, len(space)), lengths=lengths, resets=resets, given=given)


def _each_place(values: Tensor, space: tuple[int, ...]) -> Tensor:
    return values.repeat_interleave(math.prod(space), 0)


def turned(call: Call, cell: Cell, states: tuple[Tensor, ...] | None) -> Call:
    """Return the backward direction's call: each row's real steps from last to first, run by `cell`."""
    lengths, given = call.lengths, call.given
    steps = {name: reverse_within_lengths(each, lengths) for name, each in given.steps.items()}
    x = reverse_within_lengths(call.x, lengths)
    resets = _turned_resets(call.resets, lengths)
    return call._replace(cell=cell, x=x, states=states, resets=resets, given=given._replace(steps=steps))


def _turned_resets(resets: Tensor | None, lengths: Tensor | None) -> Tensor | None:
    """Return the backward direction's resets: a break before step t is, from behind, one before step t−1."""
    if resets is None:
        return None
    after = F.pad(resets[:, 1:], (0, 1))
    if lengths is not None:
        after = after & length_mask(lengths - 1, resets.shape[1])
    return reverse_within_lengths(after, lengths)


def check_parts(doing: str, **given: tuple[object, type]) -> None:
    """Raise `ConfigError` unless each argument is of the class that stands beside it."""
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            raise ConfigError(
                doing, expected=f"{name} to be a {kind.__module__}.{kind.__name__}",
                got=type(value).__name__ if isinstance(value, nn.Module) else shown(value),
                hint=f"{name}={kind.__name__}(…)",
            )  # fmt: skip


def check_batch_first(layer: object, doing: str) -> None:
    """Raise `ConfigError` where a layer reads steps before rows: what holds it gives it rows first."""
    if not getattr(layer, "batch_first", True):
        raise ConfigError(
            doing, expected="a layer that is batch first", got="batch_first=False", hint="batch_first=True"
        )


def check_vectors(layer: nn.Module, doing: str) -> None:
    """Raise `ConfigError` where a layer's cells read frames: what holds it gives it vectors."""
    for cell in layer.modules():
        if isinstance(cell, Cell) and cell.space_sizes:
            raise ConfigError(
                doing, expected="a layer whose cells read vectors", got=f"{type(cell).__name__}, which reads frames",
                hint="flatten or pool the frames, and a cell such as GRU",
            )  # fmt: skip


def check_tokens(doing: str, tokens: Tensor, axes: int | None = None) -> None:
    """Raise `ShapeError` unless these are whole numbers, [B] or [B, T] where one or two axes are asked for."""
    wrong = not isinstance(tokens, Tensor) or axes not in (None, tokens.dim())
    if wrong or tokens.is_floating_point() or tokens.dtype == torch.bool:
        said = f"shape {list(tokens.shape)}, {tokens.dtype}" if isinstance(tokens, Tensor) else repr(tokens)
        shape = {None: "[…]", 1: "[B]", 2: "[B, T]"}[axes]
        raise ShapeError(doing, expected=f"tokens {shape}, integers", got=said, hint="numbers of tokens")


def check_range(doing: str, tokens: Tensor, count: int) -> None:
    """Raise `ShapeError` unless all `tokens` are numbers below `count`; not looked at while torch compiles."""
    if torch.compiler.is_compiling() or not tokens.numel():
        return
    low, high = (int(each) for each in tokens.aminmax())
    if low < 0 or high >= count:
        raise ShapeError(
            doing, expected=f"tokens 0 to {count - 1}", got=str(low if low < 0 else high),
            hint="padding may hold anything, where lengths say that it is padding",
        )  # fmt: skip
