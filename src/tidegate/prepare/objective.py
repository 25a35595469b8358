"""What a task is trained with: the loss and the options that go with it, and what the training part says of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from tidegate.config import Config
from tidegate.errors import ConfigError
from tidegate.registry import did_you_mean
from tidegate.tasks.base import Classes
from tidegate.tasks.long_tail import ClassLoss, LabelLoss, class_balanced_weights
from tidegate.tasks.readings import NUMBER_LOSSES, POINT_LOSSES, NumberLoss

_OF_CLASSES = ("cross_entropy", "focal", "ldam")
LOSSES: dict[str, tuple[str, ...]] = {
    "classification": _OF_CLASSES,
    "tagging": _OF_CLASSES,
    "multilabel": ("cross_entropy", "focal"),
    "regression": NUMBER_LOSSES,
    "forecasting": NUMBER_LOSSES,
}
"""The losses that fit each task, the default first."""

_GO_WITH: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "label_smoothing": (("classification", "tagging", "multilabel"), ("cross_entropy",)),
    "class_weight": (("classification", "tagging", "multilabel"), _OF_CLASSES),
    "logit_adjustment": (("classification", "tagging"), ("cross_entropy",)),
    "logit_adjustment_after": (("classification", "tagging"), ("cross_entropy",)),
    "sampling": (("classification",), _OF_CLASSES),
}
"""The tasks, and the losses, that options go with which change what is learnt."""


def resolve_loss(config: Config, task: str) -> dict[str, Any]:
    """Return the loss to be written down for a task; one, or an option, that does not fit it is a `ConfigError`."""
    loss = config.loss or LOSSES[task][0]
    doing = f"choosing what to train {task} with"
    if loss not in LOSSES[task]:
        raise ConfigError(
            doing,
            expected=f"loss to be one of {', '.join(map(repr, LOSSES[task]))}",
            got=repr(loss),
            hint=f"loss={LOSSES[task][0]!r}, or another task=",
        )
    for name, (tasks, losses) in _GO_WITH.items():
        value = getattr(config, name)
        if value != Config.model_fields[name].default and (task not in tasks or loss not in losses):
            raise ConfigError(
                doing,
                expected=f"{name} with {' or '.join(tasks)}, and {' or '.join(f'loss={n!r}' for n in losses)}",
                got=f"{name}={value!r} with {task} and loss={loss!r}",
                hint=f"leave {name} out",
            )
    return {"loss": loss}


def idle_options(config: Config) -> list[str]:
    """Return a note on each option that was set and that the loss, once resolved, does not obey."""
    obeyed: dict[str, tuple[str, ...]] = {"focal_gamma": ("focal",), "ldam_margin": ("ldam",), "ldam_scale": ("ldam",)}
    if config.task == "regression":
        obeyed["quantiles"] = tuple(name for name in NUMBER_LOSSES if name not in POINT_LOSSES)
    return [
        f"{name} has no effect with loss={config.loss!r}"
        for name, names in obeyed.items()
        if getattr(config, name) != Config.model_fields[name].default and config.loss not in names
    ]


def number_loss(config: Config) -> NumberLoss:
    """Return the loss over numbers, which `resolve_loss` has let pass."""
    return cast(NumberLoss, config.loss)


def quantiles_of(config: Config) -> tuple[float, ...]:
    """Return the quantiles that a number per sequence is predicted with: none with a point loss."""
    return () if config.loss in POINT_LOSSES else config.quantiles


def class_loss(config: Config, classes: Classes, counts: np.ndarray) -> ClassLoss:
    """Return the loss over classes with their `counts` [C] in the training part."""
    weights = _weights(config, [str(c) for c in classes], [[int(n) for n in counts]])
    return ClassLoss(**_shared(config, ClassLoss), counts=tuple(counts.tolist()), weights=weights[0] if weights else ())


def label_loss(config: Config, labels: Sequence[str], values: np.ndarray) -> LabelLoss:
    """Return the loss over labels with their values [N, C], 0 or 1, in the training part."""
    counts = [int(n) for n in values.sum(0)]
    if isinstance(config.class_weight, dict):
        named = _weights(config, list(labels), [])
        pairs = tuple((1.0, w) for w in named[0])
    else:
        pairs = tuple((w[0], w[1]) for w in _weights(config, [], [[len(values) - n, n] for n in counts]))
    return LabelLoss(**_shared(config, LabelLoss), counts=tuple(counts), of=len(values), weights=pairs)


def _shared(config: Config, kind: type[ClassLoss | LabelLoss]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in kind.model_fields if name in Config.model_fields}


def _weights(config: Config, names: list[str], counts: list[list[int]]) -> list[tuple[float, ...]]:
    """Return the weights asked for, of each of the `counts` or by name; none if none were."""
    asked = config.class_weight
    if asked is None:
        return []
    if not isinstance(asked, dict):
        beta = 1.0 if asked == "balanced" else float(asked)
        return [tuple(class_balanced_weights(n, beta).tolist()) for n in counts]
    for name in asked:
        if name not in names:
            raise ConfigError(
                "reading class_weight", expected="classes of the target", got=repr(name), hint=did_you_mean(name, names)
            )
    return [tuple(asked.get(name, 1.0) for name in names)]


def groups_of(config: Config, classes: np.ndarray | None) -> list[np.ndarray]:
    """Return the indices of each class that occurs in `classes` [N], if sampling is to be balanced."""
    if config.sampling != "balanced" or classes is None:
        return []
    return [np.flatnonzero(classes == c) for c in np.unique(classes)]
