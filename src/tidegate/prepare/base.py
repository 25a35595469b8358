"""What the loop needs, and what there is to remark on a table before training on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tidegate.blueprint import AnyBlueprint
from tidegate.config import Config
from tidegate.data.schema import AS_ASKED, Schema, first_values
from tidegate.data.table import Table
from tidegate.prepare.objective import idle_options
from tidegate.tasks.base import Classes
from tidegate.tasks.network import Architecture
from tidegate.train.loop import LoaderLike

_RARELY = 0.1


@dataclass(frozen=True)
class Prepared:
    """What the loop needs, and what was decided on the way (`notes`, in plain words)."""

    blueprint: AnyBlueprint
    config: Config
    train: LoaderLike
    valid: LoaderLike
    sizes: dict[str, int]
    notes: list[str] = field(default_factory=list)


def architecture(config: Config) -> Architecture:
    """Return what the configuration says of the network."""
    return Architecture(**{name: getattr(config, name) for name in Architecture.model_fields})


def remarks(table: Table, plan: Schema, config: Config) -> list[str]:
    """Return what a user may not have meant: what is left out, one long sequence, a label that seldom changes."""
    notes = list(table.notes)
    for name, why in plan.ignored.items():
        if name != plan.time and name not in config.ignore:
            notes.append(f"column {name!r} is left out: {why}")
    if len(table.ids) == 1 and table.id_name is None and table.time_name is None:
        notes.append(f"without id= and time= the table is one sequence of {table.rows:,} steps, in row order")
    if plan.task == "tagging" and plan.reason != AS_ASKED:
        notes += _seldom_changing(table, plan.targets[0])
    return notes + idle_options(config)


def _seldom_changing(table: Table, name: str) -> list[str]:
    same = first_values(table, name)
    changing = [
        sequence
        for sequence, first, a, b in zip(table.ids, same, table.offsets[:-1], table.offsets[1:], strict=True)
        if (table.read(name, int(a), int(b)) != first).any()
    ]
    if not changing or len(changing) > _RARELY * len(table.ids):
        return []
    return [
        f"{name!r} is read as a label a step because it changes in {len(changing)} of {len(table.ids)} sequences "
        f"(first: {changing[0]!r}); if it is one label a sequence, mend those"
    ]


def spellings(classes: Classes) -> list[str]:
    """Return a note on classes that differ in case or blanks only."""
    seen: dict[str, str] = {}
    for label in (c for c in classes if isinstance(c, str)):
        twin = seen.setdefault(" ".join(label.casefold().split()), label)
        if twin != label:
            return [f"classes {twin!r} and {label!r} differ in case or blanks only"]
    return []


def rows_of(table: Table, chosen: np.ndarray) -> list[tuple[int, int]]:
    """Return the row ranges of the chosen sequences."""
    return [(int(table.offsets[i]), int(table.offsets[i + 1])) for i in chosen]
