"""Tasks on whole sequences: split by id, fit on the training part."""

from __future__ import annotations

import numpy as np

from tidegate.blueprint import Blueprint
from tidegate.config import Config
from tidegate.data.features import Encoded, fit_features
from tidegate.data.schema import Schema
from tidegate.data.split import split_by_id
from tidegate.data.table import Table
from tidegate.errors import DataError
from tidegate.prepare.base import Prepared, architecture, remarks, rows_of, spellings
from tidegate.prepare.objective import class_loss, groups_of, label_loss, number_loss, quantiles_of
from tidegate.tasks.any import AnyTask
from tidegate.tasks.classification import Classification, MultiLabel, Tagging
from tidegate.tasks.regression import Regression
from tidegate.tasks.targets import count_classes, find_classes, labelled, sequence_classes, sequence_numbers


def prepare_sequences(
    table: Table, config: Config, plan: Schema, valid: Table | None, window: int | None = None
) -> Prepared:
    """Prepare for classification, labels, regression or tagging, of tags `window` steps at a time where it is given."""
    notes = remarks(table, plan, config)
    usable = _usable(table, plan, notes)
    classes = find_classes(table, plan.targets[0]) if plan.task in ("classification", "tagging") else None
    groups = None
    if classes:
        notes += spellings(classes)
        groups = sequence_classes(table, plan.targets[0], classes).numpy() if plan.task == "classification" else None
    train_part, valid_part = usable, usable
    if valid is None:
        chosen = split_by_id(len(usable), config.valid, config.seed, None if groups is None else groups[usable])
        train_part, valid_part = usable[chosen[0]], usable[chosen[1]]
    features = fit_features(table, plan.inputs, rows_of(table, train_part), clock=plan.time)
    task = _task(table, plan, classes, train_part, config)
    balance = groups_of(config, None if groups is None else groups[train_part])
    blueprint = Blueprint(plan=plan, features=features, known=None, task=task, architecture=architecture(config))
    held = encoded = Encoded(table, features)
    if valid is not None:
        notes += blueprint.check(valid)
        held, valid_part = Encoded(valid, features), _usable(valid, plan, notes)
    return Prepared(
        blueprint,
        config,
        train=blueprint.loader(encoded, train_part, config.batch_size, config.seed, groups=balance, window=window),
        valid=blueprint.loader(held, valid_part, config.batch_size, window=window),
        sizes={"train_sequences": len(train_part), "valid_sequences": len(valid_part)},
        notes=notes,
    )


def _usable(table: Table, plan: Schema, notes: list[str]) -> np.ndarray:
    """Return the sequences that can be learnt from or scored on; `notes` says how many have no target."""
    if plan.task == "tagging":
        return np.arange(len(table.ids))
    usable = np.flatnonzero(labelled(table, plan.targets))
    if missing := len(table.ids) - len(usable):
        notes.append(f"{table.name}: {missing} of {len(table.ids)} sequences have no target and are left out")
    return usable


def _task(
    table: Table, plan: Schema, classes: tuple[bool | int | float | str, ...] | None, part: np.ndarray, config: Config
) -> AnyTask:
    if classes:
        counts = count_classes(table, plan.targets[0], classes, part, by_step=plan.task == "tagging")
        kind = Tagging if plan.task == "tagging" else Classification
        return kind(target=plan.targets[0], classes=classes, objective=class_loss(config, classes, counts))
    values = sequence_numbers(table, plan.targets)
    if plan.task == "multilabel":
        odd = values[~np.isin(values, (0, 1)) & ~np.isnan(values)]
        if odd.size:
            raise DataError(
                f"reading labels of {table.name}",
                expected="0 and 1 (or false and true)",
                got=str(odd[0]),
                hint="task='regression'",
            )
        return MultiLabel(targets=plan.targets, objective=label_loss(config, plan.targets, values[part]))
    std = values[part].std(0)
    return Regression(
        targets=plan.targets,
        mean=tuple(values[part].mean(0).tolist()),
        std=tuple(np.where(std > 0, std, 1.0).tolist()),
        point=number_loss(config),
        quantiles=quantiles_of(config),
    )
