"""One axis legend for the whole project, and the masks that lengths imply.

`B` batch · `T` time · `I` input size · `H` hidden size · `G` gates · `L` look-back · `S` horizon (steps ahead)
`F` dense features · `K` category columns · `C` targets (classes, columns) · `Q` quantiles · `N` rows or sequences

Public layout is batch first, `[B, T, …]`. A row `b` of a padded batch is real in `[b, :lengths[b]]`. A frame is
`[C, *space]`: channels, then one to three axes of space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tidegate.errors import ShapeError


def check_lengths(lengths: Tensor | Sequence[int], batch: int, steps: int) -> Tensor:
    """Return `lengths` [B] as int64, or raise `ShapeError` unless every entry lies in 0..T.

    Whatever `torch.as_tensor` reads will do. While torch compiles or exports, values are not looked at.
    """
    doing = "reading lengths="
    lengths = _tensor(doing, lengths)
    if lengths.dim() != 1 or lengths.shape[0] != batch:
        raise ShapeError(
            doing,
            expected=f"shape [{batch}]",
            got=f"shape {list(lengths.shape)}",
            hint="give one length per row of the batch",
        )
    if lengths.is_floating_point() or lengths.dtype == torch.bool or lengths.is_complex():
        raise ShapeError(doing, expected="an integer tensor", got=f"dtype {lengths.dtype}", hint="lengths.long()")
    lengths = lengths.long()
    if batch and not torch.compiler.is_compiling() and (int(lengths.min()) < 0 or int(lengths.max()) > steps):
        worst = int(((lengths < 0) | (lengths > steps)).nonzero()[0])
        raise ShapeError(
            doing,
            expected=f"every length in 0..{steps} (T)",
            got=f"{int(lengths[worst])} in row {worst}",
            hint="count the real steps of each row, padding left out",
        )
    return lengths


def check_resets(resets: Tensor | Sequence[Sequence[bool]], shape: tuple[int, int]) -> Tensor:
    """Return `resets` as a tensor, or raise `ShapeError` unless it holds booleans of `shape`, a step each."""
    doing = "reading resets="
    resets = _tensor(doing, resets)
    if resets.shape != shape or resets.dtype != torch.bool:
        raise ShapeError(
            doing,
            expected=f"booleans, one for each step, {list(shape)}",
            got=f"shape {list(resets.shape)}, dtype {resets.dtype}",
            hint="true where a sequence begins anew",
        )
    return resets


def _tensor(doing: str, values: Tensor | Sequence[object]) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        read = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(
            doing, expected="a tensor, an array or numbers", got=f"{values!r} ({error})", hint="torch.tensor([3, 5])"
        ) from error
    return read if read.numel() else read.long()


def length_mask(lengths: Tensor, steps: int) -> Tensor:
    """Return [B, T] booleans, true where a step is real."""
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Return `x` [B, T, …] with every padded step exactly zero, whatever it held (NaN included)."""
    mask = length_mask(lengths, x.shape[1])
    return x.masked_fill(~mask.reshape(mask.shape + (1,) * (x.dim() - 2)), 0)


def repeat_last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """Return `x` [B, T, …] with each row's last real step in its padding: what runs over it meets nothing new.

    A row of length 0 repeats the first step of the longest row; where all are empty, ones.
    """
    batch, steps = x.shape[:2]
    if not batch or not steps:
        return x
    mask = length_mask(lengths, steps)
    filled = x.masked_fill(~mask.reshape(mask.shape + (1,) * (x.dim() - 2)), 1)
    own = torch.arange(batch, device=x.device)
    row = torch.where(lengths > 0, own, lengths.argmax())
    step = torch.minimum(torch.arange(steps, device=x.device), (lengths - 1).clamp(min=0)[:, None])
    return filled[row[:, None], step]


def reverse_within_lengths(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return `x` [B, T, …] with each row's real steps in reverse order; padding stays where it is."""
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
    return x.gather(1, index.reshape(index.shape + (1,) * (x.dim() - 2)).expand_as(x))


def frames_to_rows(x: Tensor, axes: int) -> Tensor:
    """Return frames `x` [B, …, C, *space], with so many axes of space, as one row for each place: [B·places, …, C]."""
    return x.movedim(tuple(range(-axes, 0)), tuple(range(1, 1 + axes))).flatten(0, axes) if axes else x


def rows_to_frames(x: Tensor, space: tuple[int, ...]) -> Tensor:
    """Return the frames [B, …, C, *space] whose places are the rows of `x` [B·places, …, C]."""
    axes = len(space)
    if not axes:
        return x
    return torch.unflatten(x, 0, (-1, *space)).movedim(tuple(range(1, 1 + axes)), tuple(range(-axes, 0))).contiguous()


def last_real_step(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return each row's last real step of `x` [B, T, D] as [B, D]; zeros for a row of length 0."""
    if lengths is None:
        return x[:, -1]
    index = (lengths - 1).clamp(min=0)
    picked = x[torch.arange(x.shape[0], device=x.device), index]
    return picked.masked_fill((lengths == 0)[:, None], 0)
