"""A row graph cut into stages: what one pass over a row's units can compute before the next must begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tidegate.compile.graph import REDUCTIONS, Node, reachable

Target: TypeAlias = tuple[str, int | str, int]
"""Where a result goes: a kind of buffer, which of them, and the first unit there."""


@dataclass
class Stage:
    """One pass over the units of rows of one width: its products first, then elementwise nodes, in order.

    `reductions` end with the pass; `kept` nodes are written to scratch for later stages; `stores` go to buffers.
    """

    level: int
    width: int
    products: list[Node] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    reductions: list[Node] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)
    stores: list[tuple[Node, Target]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """The stages in order; `scratch` are the nodes that outlive their stage, `views` windows of wider products."""

    stages: tuple[Stage, ...]
    scratch: tuple[Node, ...]
    views: Mapping[Node, tuple[Node, int]]

    @property
    def products(self) -> list[Node]:
        return [product for stage in self.stages for product in stage.products]


def plan(
    stores: Iterable[tuple[Node, Target]], is_given: Callable[[Node], bool], in_rows: Callable[[Node], bool]
) -> Plan:
    """Cut what the stores need into stages.

    `is_given` nodes are read from buffers, not computed; those `in_rows` lie in scratch already, row after row,
    so that a product can take them.
    """
    return _Planner(list(stores), is_given, in_rows).plan()


class _Planner:
    def __init__(
        self, stores: list[tuple[Node, Target]], is_given: Callable[[Node], bool], in_rows: Callable[[Node], bool]
    ) -> None:
        self.stores = stores
        self.is_given = is_given
        self.in_rows = in_rows
        self.order = reachable((node for node, _ in stores), lambda n: () if is_given(n) else n.inputs)
        self.views = _views([n for n in self.order if n.op == "product" and not is_given(n)])
        self.wide = {*self.views, *(wide for wide, _ in self.views.values())}
        self.levels: dict[Node, int] = {}
        self.users: dict[Node, list[Node]] = {n: [] for n in self.order}
        for node in self.order:
            if not is_given(node) and node not in self.views:
                for source in node.inputs:
                    self.users[source].append(node)

    def plan(self) -> Plan:
        for node in self.order:
            self.levels[node] = self._earliest(node)
        for node in reversed(self.order):
            self._sink(node)
        kept = self._kept()
        stages: dict[tuple[int, int], Stage] = {}

        def stage(level: int, width: int) -> Stage:
            return stages.setdefault((level, width), Stage(level, width))

        for node in self.order:
            at = stage(self.levels[node], node.inputs[0].width if node.op in REDUCTIONS else node.width)
            if node in kept:
                at.kept.append(node)
            if self._is_read(node) or node in self.views:
                continue
            {"product": at.products, **dict.fromkeys(REDUCTIONS, at.reductions)}.get(node.op, at.nodes).append(node)
        for node, target in self.stores:
            level = self.levels[node] + (node.op in REDUCTIONS or node in self.views)
            stage(level, node.width).stores.append((node, target))
        ordered = [stages[key] for key in sorted(stages) if _does_something(stages[key])]
        return Plan(tuple(ordered), tuple(n for n in self.order if n in kept), self.views)

    def _is_read(self, node: Node) -> bool:
        return node.is_leaf or self.is_given(node)

    def _earliest(self, node: Node) -> int:
        if self._is_read(node):
            return 0
        if node in self.views:
            wide = self.views[node][0]
            self.levels.setdefault(wide, self._earliest(wide))
            return self.levels[wide]
        if node.op == "product":
            return max(0 if self.in_rows(v) else self.levels[v] + 1 for v in node.inputs)
        if node.op in REDUCTIONS:
            return self._from(node.inputs[0], node.inputs[0].width)
        return max((self._from(source, node.width) for source in node.inputs), default=0)

    def _from(self, source: Node, width: int) -> int:
        """Return the first level at which a pass over `width` units can read `source`."""
        if self._is_read(source):
            return 0
        later = source.width != width or source.op in REDUCTIONS or source in self.views
        return self.levels[source] + later

    def _sink(self, node: Node) -> None:
        """Move a node to the stage of its first user: what is not kept need not be written and read."""
        if self._is_read(node) or node.op in REDUCTIONS or not self.users[node] or node in self.wide:
            return
        limits = []
        for user in self.users[node]:
            level = self.levels[user]
            same = user.op in REDUCTIONS or (user.op != "product" and user.width == node.width)
            limits.append(level if same else level - 1)
        self.levels[node] = max(self.levels[node], min(limits))

    def _kept(self) -> set[Node]:
        """Return the nodes that another stage reads, or a product as its rows."""
        kept = set()
        for node in self.order:
            if self._is_read(node) or node in self.views:
                continue
            for source in node.inputs:
                if self._outlives(source, node):
                    kept.add(self.views[source][0] if source in self.views else source)
        for node, _ in self.stores:
            if node.op in REDUCTIONS or node in self.views:
                kept.add(self.views[node][0] if node in self.views else node)
        return kept

    def _outlives(self, source: Node, user: Node) -> bool:
        if user.op == "product":
            return not self.in_rows(source)
        if self._is_read(source):
            return False
        width = user.inputs[0].width if user.op in REDUCTIONS else user.width
        return (
            self.levels[source] != self.levels[user]
            or source.width != width
            or source.op in REDUCTIONS
            or source in self.views
        )


def _does_something(stage: Stage) -> bool:
    return bool(stage.products or stage.nodes or stage.reductions or stage.kept or stage.stores)


def _views(products: list[Node]) -> dict[Node, tuple[Node, int]]:
    """Find the products that are windows of a wider one: it is computed once, they read from it."""
    found: dict[Node, tuple[Node, int]] = {}
    for wide in products:
        for narrow in products:
            offset = _offset(wide, narrow)
            if offset is not None and narrow not in found and narrow.width < wide.width:
                found[narrow] = (wide, offset)
    return found


def _offset(wide: Node, narrow: Node) -> int | None:
    if wide.inputs != narrow.inputs:
        return None
    offsets = set()
    for a, b in zip(wide.attributes, narrow.attributes, strict=True):
        offset = b.row - a.row if a.turned else b.column - a.column
        offsets.add(offset if b == a.window(offset) else None)
    offset = offsets.pop()
    return offset if not offsets and offset is not None and 0 <= offset <= wide.width - narrow.width else None
