"""The source of noise for kernels and all else: ones at a rate, drawn by every thread at once."""

from __future__ import annotations

import math
from array import array

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.llvm import bernoulli, threads
from tidegate.compile.llvm.bernoulli import PIECE
from tidegate.compile.llvm.host import host

_ALONE = 4 * PIECE
"""Up to so many numbers, one thread is done before another has come."""


def ones(rate: float, shape: tuple[int, ...]) -> Tensor:
    """Draw ones at this rate, above 0 and below 1, else zeros, in float32; torch's random state gives the seed."""
    drawn = memory.fresh(shape, torch.float32)
    count, seed = math.prod(shape), int(torch.empty((), dtype=torch.int64).random_(-(2**63), None))
    told = {
        "pieces": math.ceil(count / PIECE), "count": count, "seed": seed,
        "limit": min(round(rate * 2**32), 2**32 - 1), "result": drawn.data_ptr(),
    }  # fmt: skip
    argument = array("q", [told.get(slot, 0) for slot in bernoulli.SLOTS])
    entry, several = bernoulli.compiled(host()), torch.get_num_threads() if count > _ALONE else 1
    threads.run(entry, argument.buffer_info()[0], several)
    return drawn
