"""The source of noise for kernels and all else: a number at a rate, else 0, drawn by every thread at once."""

from __future__ import annotations

import math
import struct
from array import array
from functools import cache

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.llvm import bernoulli, threads
from tidegate.compile.llvm.bernoulli import PIECE
from tidegate.compile.llvm.host import host

_ALONE = 4 * PIECE
"""Up to so many numbers, one thread is done before another has come."""


def draw(rate: float, value: float, shape: tuple[int, ...]) -> Tensor:
    """Draw `value` at this rate, above 0 and below 1, else 0, in float32; torch's random state gives the seed."""
    drawn = memory.fresh(shape, torch.float32)
    count, limit = math.prod(shape), min(round(rate * 2**32), 2**32 - 1)
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    seed = int(torch.empty((), dtype=torch.int64, device="cpu").random_(-(2**63), None))
    argument = array("q", [0, math.ceil(count / PIECE), count, seed, limit, bits, drawn.data_ptr()])
    threads.run(_entry(), argument.buffer_info()[0], torch.get_num_threads() if count > _ALONE else 1)
    return drawn


@cache
def _entry() -> int:
    """Return what draws the same numbers by whatever instructions."""
    return bernoulli.compiled(host())
