"""Batch norm inside a recurrence: statistics that every step has of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tidegate.cells.noise import Now

EPSILON = 1e-5


class StepStatistics(nn.Module):
    """Normalise each unit over the rows of a batch, step by step: `(v − mean_t)/√(var_t + ε)`.

    In training the statistics are the batch's own at that step, over the rows that still run, and move those stored
    by `momentum`, once a run; in evaluation the stored ones are used. Of `steps` stored, the last serves all steps from
    there on: the mean of what they show moves it.

    Source: Cooijmans et al. 2016 (1603.09025), equation 3 and section 3. Deviation: the paper's last stored step is
    the longest sequence seen in training; here `steps` says which it is. Its statistics for evaluation are those
    of the whole training part, here running means. Steps are counted from a run's first, across `resets`. Where a
    single row runs, which has no variance, the stored statistics are used in training, too.
    """

    mean: Tensor
    var: Tensor

    def __init__(
        self,
        steps: int,
        width: int,
        momentum: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(steps, width, device=device, dtype=dtype))
        self.register_buffer("var", torch.ones(steps, width, device=device, dtype=dtype))
        self._seen: list[Tensor] = []

    def reset(self) -> None:
        """Forget what was seen."""
        self.mean.zero_()
        self.var.fill_(1.0)
        self.begin()

    def begin(self) -> None:
        """Begin a run, of which nothing is seen yet."""
        self._seen = []

    def forward(self, v: Tensor, now: Now, units: slice) -> Tensor:
        """Normalise `v` [B, W], or [B, T, W] for T steps at once; `units` are those of `v` among the stored."""
        steps = v if v.dim() == 3 else v[:, None]
        stored = torch.arange(now.first, now.first + steps.shape[1], device=v.device).clamp(max=len(self.mean) - 1)
        mean, var = self.mean[stored, units], self.var[stored, units]
        if self.training:
            real = steps.new_ones(*steps.shape[:2], 1)
            if now.real is not None:
                real = now.real.to(v.dtype).reshape(real.shape)
            count = real.sum(0)
            own_mean = (steps * real).sum(0) / count.clamp(min=1)
            own_var = ((steps - own_mean).square() * real).sum(0) / count.clamp(min=1)
            self._see(own_mean.detach(), own_var.detach(), count, stored, units)
            mean, var = torch.where(count > 1, own_mean, mean), torch.where(count > 1, own_var, var)
        normed = (steps - mean) * torch.rsqrt(var + EPSILON)
        return normed if v.dim() == 3 else normed[:, 0]

    @torch.no_grad()
    def settle(self) -> None:
        """Move what is stored towards what was seen since: a run does so once, at its end."""
        if not self._seen:
            return
        (count, mean, var), self._seen = self._seen, []
        for kept, new in ((self.mean, mean), (self.var, var)):
            moved = torch.lerp(kept, new / count.clamp(min=1), self.momentum)
            kept.copy_(torch.where(count > 0, moved, kept))

    @torch.no_grad()
    def _see(self, mean: Tensor, var: Tensor, count: Tensor, stored: Tensor, units: slice) -> None:
        """Add statistics of steps [T, W] to those of the places they fall on."""
        weight = (count > 1).to(mean.dtype)
        unbiased = var * count / (count - 1).clamp(min=1)
        if not self._seen:
            self._seen = [torch.zeros_like(self.mean) for _ in range(3)]
        for total, new in zip(self._seen, (torch.ones_like(mean), mean, unbiased), strict=True):
            total[:, units] = total[:, units].index_add(0, stored, (new * weight).to(total.dtype))
