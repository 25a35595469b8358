"""Kernels by what they compute: one that was written before, at whatever sizes, is not written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tidegate.compile.graph import Factor, Node
from tidegate.compile.llvm.frame import Name, Size
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.kernel import Kernel, emit
from tidegate.compile.llvm.texts import written
from tidegate.compile.stages import Plan


def kernel(plan: Plan, states: Sequence[int], target: Target, real: str, **options: Any) -> Kernel:
    """Return what `emit` writes, from memory or disk where a plan of the same form was written before."""
    sizes = _Sizes()
    described = _Description(sizes).plan(plan, states, options.get("saved") or {})
    fixed = (
        target.isa,
        real,
        sorted(options.get("partial", ())),
        options.get("backward", False),
        options.get("direct", False),
        options.get("tiles", 0),
        options.get("own", False),
    )
    text = json.dumps([fixed, sorted(options["outputs"].items()), described])
    found = written(text, lambda: _dump(emit(plan, states, target, real, **options), sizes))
    return _load(found, sizes)


class _Sizes:
    """Sizes and offsets by number, in the order in which they were first named; 0 is always 0."""

    def __init__(self) -> None:
        self.known = [0]

    def __call__(self, size: int) -> int:
        if size not in self.known:
            self.known.append(size)
        return self.known.index(size)


class _Description:
    """Writes down a plan such that two read alike if, and only if, one kernel serves both."""

    def __init__(self, size: Callable[[int], int]) -> None:
        self._size = size
        self._numbers: dict[Node, int] = {}

    def plan(self, plan: Plan, states: Sequence[int], saved: Mapping[Node, int]) -> list[Any]:
        stages = [
            [
                self._size(stage.width),
                *([self._node(n, saved) for n in nodes] for nodes in (stage.products, stage.nodes, stage.reductions)),
                [self._node(n, saved) for n in stage.kept],
                [[self._node(n, saved), kind, name, self._size(offset)] for n, (kind, name, offset) in stage.stores],
            ]
            for stage in plan.stages
        ]
        views = [[self._node(n, saved), self._node(w, saved), self._size(o)] for n, (w, o) in plan.views.items()]
        return [stages, views, [self._node(n, saved) for n in plan.scratch], [self._size(s) for s in states]]

    def _node(self, node: Node, saved: Mapping[Node, int]) -> Any:
        if node in self._numbers:
            return self._numbers[node]
        self._numbers[node] = len(self._numbers)
        if node in saved:
            return ["saved", saved[node], self._size(node.width)]
        inputs = [self._node(i, saved) for i in node.inputs]
        return [node.op, self._size(node.width), inputs, [self._attribute(node.op, a) for a in node.attributes]]

    def _attribute(self, op: str, attribute: Any) -> Any:
        if isinstance(attribute, Factor):
            return [attribute.matrix, self._size(attribute.row), self._size(attribute.column), attribute.turned]
        if op in ("share", "standardised"):
            return self._size(attribute)
        if op == "const" or isinstance(attribute, str):
            return attribute
        return self._size(attribute)


def _dump(new: Kernel, size: Callable[[int], int]) -> str:
    def plain(names: Sequence[Name]) -> list[Any]:
        return [[{"size": size(part)} if isinstance(part, Size) else part for part in name] for name in names]

    return json.dumps(
        [new.text, plain(new.slots), plain(new.prepare_slots), plain(new.scratch), new.changing, new.tiles]
    )


def _load(found: str, sizes: _Sizes) -> Kernel:
    def names(each: Sequence[Any]) -> tuple[Name, ...]:
        return tuple(tuple(sizes.known[p["size"]] if isinstance(p, dict) else p for p in name) for name in each)

    text, slots, prepare_slots, scratch, changing, tiles = json.loads(found)
    return Kernel(text, names(slots), names(prepare_slots), names(scratch), changing, tiles)
