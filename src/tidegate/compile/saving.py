"""What of a step is saved for its reverse: the fewest numbers from which all that the reverse reads can be made again.

Memory is what a long run waits for: cheap operations are done a second time where that saves some. The choice is a
smallest cut between what must be kept and what is read, as in the partitioner of torch's compiler (functorch, 2022).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from tidegate.compile.graph import COSTLY, REDUCTIONS, Node, reachable

_GIVEN = frozenset({"step", "row", "shared", "const", "share"})
"""What the reverse is given as the step was."""

SHALLOW = 32
"""A product of so many inputs is made again sooner than it is read; with 64, as measured, it takes as long."""

_ENDLESS = 1 << 60

Point: TypeAlias = tuple[Node | None, int]
_START: Point = (None, 0)
_END: Point = (None, 1)


def choose(gradients: Iterable[Node], multiplied: Iterable[Node]) -> tuple[Node, ...]:
    """Return the forward nodes to save, which the gradients are made from, in order.

    What a product `multiplied` is saved always: its matrix's gradient is one product over all steps.
    """
    roots = list(dict.fromkeys(v for v in multiplied if v.op != "step"))
    backward = _of_gradients(gradients)
    read = dict.fromkeys(i for node in backward for i in node.inputs if i not in backward)
    return tuple(dict.fromkeys([*roots, *_cut(list(read), roots)]))


def _of_gradients(roots: Iterable[Node]) -> dict[Node, None]:
    """Return the nodes that a gradient enters, in order."""
    found: dict[Node, None] = {}
    for node in reachable(roots):
        if node.op == "grad" or any(i in found for i in node.inputs):
            found[node] = None
    return found


def _must_keep(node: Node) -> bool:
    """Whether a node that is needed cannot be made again, or takes too long.

    Which number of a row was its largest is told by all of their bits: made again, one may be rounded otherwise.
    """
    is_largest = node.op == "equal" and any(i.op in REDUCTIONS for i in node.inputs)
    return is_largest or node.op in COSTLY or node.op in REDUCTIONS or node.op in ("product", "state")


def _of_few_inputs(nodes: Iterable[Node]) -> set[Node]:
    """Return those of the nodes, in order, that are made of inputs alone, by products of few: sooner than read.

    To keep a number and to read it takes as long as some thirty operations.
    """
    found: set[Node] = set()
    for node in nodes:
        is_deep = node.op == "product" and sum(i.width for i in node.inputs) > SHALLOW
        of_inputs = not node.is_leaf and all(i in found or i.op in _GIVEN for i in node.inputs)
        if of_inputs and not is_deep and node.op not in REDUCTIONS:
            found.add(node)
    return found


def _cut(read: Sequence[Node], free: Sequence[Node]) -> list[Node]:
    """Return nodes from which those that are read can be made, of the least width altogether; `free` ones are there.

    Each node is an edge of its width, from `(node, 0)` to `(node, 1)`: those of the smallest cut between what must be
    kept and what is read. Of several cuts it is the last, which leaves least to do again.
    """
    room: dict[Point, dict[Point, int]] = defaultdict(dict)

    def edge(start: Point, end: Point, size: int) -> None:
        room[start][end] = size
        room[end].setdefault(start, 0)

    nodes = [n for n in reachable(read) if n.op not in _GIVEN and n not in free]
    few = _of_few_inputs(nodes)
    for node in nodes:
        edge((node, 0), (node, 1), node.width)
        if _must_keep(node) and node not in few:
            edge(_START, (node, 0), _ENDLESS)
        else:
            for i in node.inputs:
                edge((i, 1), (node, 0), _ENDLESS)
    for node in read:
        edge((node, 1), _END, _ENDLESS)
    while path := _path(room):
        size = min(room[a][b] for a, b in path)
        for a, b in path:
            room[a][b] -= size
            room[b][a] += size
    behind = _leading_to(room, _END)
    return [n for n in nodes if (n, 1) in behind and (n, 0) not in behind]


def _path(room: Mapping[Point, Mapping[Point, int]]) -> list[tuple[Point, Point]]:
    """Return the shortest way from start to end on which there is room, or nothing."""
    before: dict[Point, Point] = {_START: _START}
    waiting = deque([_START])
    while waiting and _END not in before:
        here = waiting.popleft()
        for there, size in room[here].items():
            if size and there not in before:
                before[there] = here
                waiting.append(there)
    path: list[tuple[Point, Point]] = []
    here = _END
    while here in before and here != _START:
        path.append((before[here], here))
        here = before[here]
    return path


def _leading_to(room: Mapping[Point, Mapping[Point, int]], end: Point) -> set[Point]:
    """Return the points from which there is still room all the way to the end."""
    found, waiting = {end}, [end]
    while waiting:
        here = waiting.pop()
        for there in room[here]:
            if there not in found and room[there].get(here):
                found.add(there)
                waiting.append(there)
    return found
