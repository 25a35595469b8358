"""A table made of arrays that are already encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tidegate.data.grouping import InMemory
from tidegate.data.table import ColumnInfo, Table


def memory_table(
    name: str,
    ids: Sequence[str | int],
    offsets: np.ndarray,
    columns: Mapping[str, tuple[ColumnInfo, np.ndarray]],
    *,
    id_name: str | None = None,
    time_name: str | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Return a table in memory; each array holds the rows of all sequences, in turn, as `Table.read` gives."""
    infos = {key: info for key, (info, _) in columns.items()}
    storage = {key: InMemory(values) for key, (_, values) in columns.items()}
    return Table(name, list(ids), id_name, time_name, offsets, infos, storage, True, list(notes))
