"""The forecasting network: instance-normalised look-back, recurrent encoder, autoregressive highway."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tidegate.data.batch import Batch
from tidegate.shapes import last_real_step
from tidegate.tasks.forecasting import Forecasting
from tidegate.tasks.network import Architecture, Columns, Network

_STEP_WIDTH = 32
_FLOOR = 1e-4
"""Least scale of a window, in standard units: a flat look-back must not blow rounding up."""


class ForecastNetwork(Network):
    """`ŷ = m + s · (AR(u) + head(RNN(u, columns), m, s, known future))`, `u = (y − m) / s` over the look-back.

    m and s are the mean and standard deviation of the look-back of each target (instance normalisation, Kim 2022,
    "RevIN", without its affine part). AR is one linear map from the look-back to the horizon beside the recurrent
    path, as in LSTNet (Lai 2018, §3.5), shared by all targets. Missing steps enter as u = 0 with a mask of 0.
    With shared channels each target is forecast on its own by the same weights; joint channels see each other.
    Of a distribution's parameters the place is forecast so; the logarithm of its scale gains ln s.
    """

    def __init__(
        self,
        architecture: Architecture,
        task: Forecasting,
        width: int,
        cardinalities: tuple[int, ...],
        known_width: int,
        known_cardinalities: tuple[int, ...],
    ) -> None:
        super().__init__(task)
        self.horizon, self.targets, self.outputs = task.horizon, len(task.targets), task.outputs
        self.places, self.log_scales = task.reading.places, task.reading.log_scales
        self.shared = architecture.channels == "shared" or self.targets == 1
        channels = 1 if self.shared else self.targets
        self.columns = Columns(width, cardinalities)
        self.known = Columns(known_width, known_cardinalities)
        self.recurrent = architecture.recurrent(2 * channels + self.columns.width)
        self.dropout = nn.Dropout(architecture.dropout)
        self.highway = nn.Linear(task.lookback, task.horizon)
        nn.init.zeros_(self.highway.weight)
        nn.init.zeros_(self.highway.bias)
        self.context = nn.Linear(self.recurrent.output_size + 2 * channels, task.horizon * _STEP_WIDTH)
        self.step = nn.Linear(_STEP_WIDTH + self.known.width, _STEP_WIDTH)
        self.head = nn.Linear(_STEP_WIDTH, channels * task.outputs)

    def forward(self, batch: Batch) -> Tensor:
        if batch.history is None:
            raise RuntimeError("a forecasting network needs batches with a history")
        history, copies = batch.history, 1
        if self.shared and self.targets > 1:
            copies = self.targets
            history = history.transpose(1, 2).reshape(-1, history.shape[1], 1)
        seen = ~history.isnan()
        level, scale = _moments(history, seen)
        u = torch.where(seen, (history - level) / scale, 0.0)
        columns = _repeat(self.columns(batch.dense, batch.codes), copies)
        lengths = _repeat(batch.lengths, copies)
        x = torch.cat([u, seen.to(u.dtype), columns], dim=-1)
        encoded = last_real_step(self.recurrent(x, lengths=lengths)[0], lengths)
        return self._decode(batch, encoded, _align(u, lengths), level, scale, copies)

    def _decode(self, batch: Batch, encoded: Tensor, u: Tensor, level: Tensor, scale: Tensor, copies: int) -> Tensor:
        facts = torch.cat([encoded, level[:, 0], scale[:, 0].log()], dim=1)
        steps = self.context(self.dropout(facts)).reshape(-1, self.horizon, _STEP_WIDTH)
        if batch.known_dense is not None and batch.known_codes is not None:
            known = _repeat(self.known(batch.known_dense, batch.known_codes), copies)
            steps = torch.cat([steps, known], dim=-1)
        raw = self.head(F.gelu(self.step(steps))).reshape(*steps.shape[:2], u.shape[2], self.outputs)
        linear = self.highway(u.transpose(1, 2)).transpose(1, 2)[..., None]
        forecast = (raw[..., : self.places] + linear) * scale[..., None] + level[..., None]
        if self.places < self.outputs:
            # A spread grows with the look-back's; what has no unit does not.
            grows = [float(i in self.log_scales) for i in range(self.places, self.outputs)]
            spread = raw[..., self.places :] + scale[..., None].log() * scale.new_tensor(grows)
            forecast = torch.cat([forecast, spread], dim=-1)
        if copies > 1:
            forecast = forecast.reshape(-1, copies, self.horizon, self.outputs).transpose(1, 2)
        return forecast


def _moments(history: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and scale [B, 1, C] of what was observed; 0 and 1 where nothing was."""
    count = seen.sum(1, keepdim=True)
    known = torch.where(seen, history, 0.0)
    level = known.sum(1, keepdim=True) / count.clamp(min=1)
    square = torch.where(seen, history - level, 0.0).square().sum(1, keepdim=True) / count.clamp(min=1)
    # The square root's gradient at 0 is infinite; clamping first keeps a flat window harmless.
    scale = square.clamp(min=_FLOOR**2).sqrt()
    return level, torch.where(count > 0, scale, 1.0)


def _repeat(x: Tensor, copies: int) -> Tensor:
    return x if copies == 1 else x.repeat_interleave(copies, dim=0)


def _align(u: Tensor, lengths: Tensor) -> Tensor:
    """Shift short look-backs to the end, so that the highway's last weight always meets the latest step."""
    width = u.shape[1]
    index = torch.arange(width, device=u.device) - (width - lengths[:, None])
    moved = u.gather(1, index.clamp(min=0)[..., None].expand_as(u))
    return moved.masked_fill((index < 0)[..., None], 0)
