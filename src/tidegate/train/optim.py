"""Optimizers and learning-rate schedules, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from tidegate.registry import Registry
from tidegate.train.average import AveragedSGD
from tidegate.train.muon import Muon
from tidegate.train.settings import TrainSettings

Groups = list[dict[str, Any]]
Blocks = dict[nn.Parameter, int]
OPTIMIZERS: Registry[Callable[[Groups, TrainSettings, Blocks], Optimizer]] = Registry("optimizer")
SCHEDULES: Registry[Callable[[int, int, TrainSettings], float]] = Registry("schedule")


@OPTIMIZERS.add("sgd")
def _sgd(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return torch.optim.SGD(groups, lr=settings.lr, fused=True)


@OPTIMIZERS.add("momentum")
def _momentum(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, fused=True)


@OPTIMIZERS.add("nt_asgd")
def _nt_asgd(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return AveragedSGD(groups, lr=settings.lr)


@OPTIMIZERS.add("rmsprop")
def _rmsprop(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return torch.optim.RMSprop(groups, lr=settings.lr, foreach=True)


@OPTIMIZERS.add("adam")
def _adam(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return torch.optim.Adam(groups, lr=settings.lr, fused=True)


@OPTIMIZERS.add("adamw")
def _adamw(groups: Groups, settings: TrainSettings, *_: Any) -> Optimizer:
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


@OPTIMIZERS.add("muon")
def _muon(groups: Groups, settings: TrainSettings, blocks: Blocks) -> Optimizer:
    matrices = [(p, blocks[p]) for group in groups for p in group["params"] if p in blocks]
    others = [{**group, "params": [p for p in group["params"] if p not in blocks]} for group in groups]
    others = [group for group in others if group["params"]]
    return Muon(matrices, others, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> Optimizer:
    """Build the optimizer. Weight decay spares vectors: biases, norm scales, initial states.

    Each group remembers its own rate as `initial_lr`, as torch's schedulers do; `set_rates` multiplies that. A module
    that has matrices made of gates says so: `gate_blocks()` names them, with the number of gates along their rows.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    blocks: Blocks = {}
    for module in model.modules():
        named: Callable[[], dict[str, int]] | None = getattr(module, "gate_blocks", None)
        blocks |= {getattr(module, name): count for name, count in (named() if named else {}).items()}
    optimizer = OPTIMIZERS[settings.optimizer]([g for g in groups if g["params"]], settings, blocks)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Give every group its own initial rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


@SCHEDULES.add("constant")
def _constant(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001 - one signature for all
    return 1.0


@SCHEDULES.add("cosine")
def _cosine(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001
    return 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


@SCHEDULES.add("linear")
def _linear(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001
    return max(1 - step / max(total, 1), 0.0)


@SCHEDULES.add("inverse_sqrt")
def _inverse_sqrt(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001
    """`√(w/(w + step))` after w = `warmup_steps` (at least 1) steps: Vaswani et al. 2017, equation 3, peak 1."""
    warmup = max(settings.warmup_steps, 1)
    return math.sqrt(warmup / (warmup + step))


@SCHEDULES.add("one_cycle")
def _one_cycle(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001
    """Up from 1/25 over the first 30 % of the steps, down to 1/10,000 of that (Smith & Topin 2019), along cosines.

    The shape and the numbers are those of `torch.optim.lr_scheduler.OneCycleLR`.
    """
    low, end, peak = 1 / 25, 1 / 25e4, 0.3 * max(total, 1) - 1
    if step < peak:
        return low + (1 - low) * 0.5 * (1 - math.cos(math.pi * step / peak))
    share = (step - peak) / max(max(total, 1) - 1 - peak, 1e-9)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


@SCHEDULES.add("step")
def _step(step: int, total: int, settings: TrainSettings) -> float:
    return float(settings.lr_factor ** int(3 * min(step / max(total, 1), 1.0)))


@SCHEDULES.add("plateau")
def _plateau(step: int, total: int, settings: TrainSettings) -> float:  # noqa: ARG001 - see `plateau_factor`
    return 1.0


def plateau_factor(history: Sequence[float], settings: TrainSettings) -> float:
    """Return what the "plateau" schedule multiplies the rate by after epochs whose monitored values are `history`.

    `history` counts lower as better. The rate falls by `lr_factor` whenever `plateau_epochs` epochs in a row bring no
    new best, as in `torch.optim.lr_scheduler.ReduceLROnPlateau` with threshold 0 and patience `plateau_epochs - 1`.
    """
    best, waited, cuts = math.inf, 0, 0
    for value in history:
        best, waited = (value, 0) if value < best else (best, waited + 1)
        if waited == settings.plateau_epochs:
            cuts, waited = cuts + 1, 0
    return float(settings.lr_factor**cuts)


def rate_factor(step: int, total: int, settings: TrainSettings) -> float:
    """Return what the rates are multiplied by at `step` of `total`: a linear warm-up to 1, then the schedule.

    It has no state to save.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[settings.schedule](step - warmup, total - warmup, settings)
