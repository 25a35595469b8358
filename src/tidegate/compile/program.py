"""A cell's step as two plans, one for each direction, over buffers with names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.compile.adjoint import reverse
from tidegate.compile.graph import Factor, Node, reachable
from tidegate.compile.stages import Plan, Target, plan
from tidegate.compile.trace import Traced
from tidegate.files import sha256

GRADIENTS = {"step": "step_gradient", "state": "state", "shared": "shared_gradient"}
"""Where the gradient of each kind of leaf goes."""


@dataclass(frozen=True)
class Outer:
    """A matrix's gradient: the sum over rows and steps of what a product multiplied, times its result's gradient.

    `left` is where the former stands, `(kind, name, offset, width)`; the gradient stands in buffer `kind`, `name`, from
    unit `offset` on.
    """

    left: tuple[str, int | str, int, int]
    kind: str
    name: int | str
    offset: int
    width: int
    factor: Factor


@dataclass(frozen=True)
class Program:
    """Everything about a step that does not depend on how it is run.

    Buffers are named by kind: `step`, `row`, `state`, `shared`, `saved`, `outer` (gradients of products' results
    that stand in no other buffer), `step_gradient` and `shared_gradient`. `partial` are the gradients whose windows
    overlap or leave gaps, which start from zero and are added to. The plans `_ahead` leave what products have of
    inputs to be computed for several steps ahead. `backward_within` leaves out the gradients of inputs, but for those
    where a part is the gradient of a product, of which a matrix's is made; it is `backward` where that is none.
    """

    traced: Traced
    saved: tuple[Node, ...]
    outers: tuple[Outer, ...]
    outer_width: int
    infer: Plan
    infer_ahead: Plan
    forward: Plan
    forward_ahead: Plan
    backward: Plan
    backward_within: Plan
    states: tuple[int, ...]
    partial: frozenset[tuple[str, int | str]]


def program(traced: Traced, state_sizes: Sequence[int]) -> Program:
    """Derive the plans of a traced step: without saving, with saving, and in reverse."""
    adjoint = reverse(traced)
    known: dict[Node, Node] = {}

    def passed(node: Node) -> Node:
        return traced.graph.unstopped(node, known)

    states = [
        (passed(piece), ("state", index, offset))
        for index, pieces in enumerate(traced.states)
        for offset, piece in _offsets(pieces)
    ]
    saves: list[tuple[Node, Target]] = [
        (passed(node), ("saved", number, 0)) for number, node in enumerate(adjoint.saved)
    ]
    gradients: list[tuple[Node, Target]] = [
        (gradient, (GRADIENTS[leaf.op], *leaf.attributes))
        for leaf, gradient in adjoint.leaves.items()
        if leaf.op in GRADIENTS
    ]
    outers, extra = _outers(adjoint.products, adjoint.saved, gradients)
    saved = set(adjoint.saved)
    read = {(outer.kind, outer.name) for outer in outers}
    within = [each for each in gradients if each[1][0] != "step_gradient" or each[1][:2] in read]

    def reversed_to(leaves: list[tuple[Node, Target]]) -> Plan:
        return plan([*leaves, *extra], lambda n: n.is_leaf or n in saved, lambda _: False)

    backward = reversed_to(gradients)
    return Program(
        traced=traced,
        saved=adjoint.saved,
        outers=tuple(outers),
        outer_width=sum(node.width for node, _ in extra),
        infer=plan(states, _is_leaf, _is_state),
        infer_ahead=plan(states, _is_leaf, _is_given),
        forward=plan([*states, *saves], _is_leaf, _is_state),
        forward_ahead=plan([*states, *saves], _is_leaf, _is_given),
        backward=backward,
        backward_within=backward if within == gradients else reversed_to(within),
        states=tuple(state_sizes),
        partial=_partial(gradients, traced, state_sizes),
    )


def fingerprint(traced: Traced, state_sizes: Sequence[int]) -> str:
    """Return a digest of all that `program` reads of a traced step: steps of one digest have one program."""
    order = reachable(node for pieces in traced.states for node in pieces)
    number = {node: at for at, node in enumerate(order)}
    nodes = [(node.op, node.width, [number[i] for i in node.inputs], node.attributes) for node in order]
    states = [[number[node] for node in pieces] for pieces in traced.states]
    shapes = [tuple(shape) for shape in traced.shapes]
    read = (nodes, states, traced.vectors, traced.matrices, [*traced.widths.items()], shapes, tuple(state_sizes))
    return sha256(repr(read).encode())


def _partial(
    gradients: list[tuple[Node, Target]], traced: Traced, state_sizes: Sequence[int]
) -> frozenset[tuple[str, int | str]]:
    """Return the buffers that the gradients' windows do not tile."""
    widths: dict[tuple[str, int | str], int] = {("state", i): size for i, size in enumerate(state_sizes)}
    widths |= {("step_gradient", name): width for name, width in traced.widths.items()}
    found = set()
    for (kind, name), width in widths.items():
        windows = sorted((offset, node.width) for node, (k, n, offset) in gradients if (k, n) == (kind, name))
        ends = [0, *(offset + size for offset, size in windows)]
        if ends[-1] != width or any(offset != end for (offset, _), end in zip(windows, ends, strict=False)):
            found.add((kind, name))
    return frozenset(found)


def _is_leaf(node: Node) -> bool:
    return node.is_leaf


def _is_state(node: Node) -> bool:
    return node.op == "state"


def _is_given(node: Node) -> bool:
    return node.op in ("state", "step")


def _offsets(pieces: Sequence[Node]) -> list[tuple[int, Node]]:
    found, offset = [], 0
    for piece in pieces:
        found.append((offset, piece))
        offset += piece.width
    return found


def _outers(
    products: Sequence[tuple[Node, Node, Factor]], saved: Sequence[Node], gradients: list[tuple[Node, Target]]
) -> tuple[list[Outer], list[tuple[Node, Target]]]:
    """Return every matrix gradient, neighbours as one, and the gradients that need a buffer of their own."""
    places = {node: target for node, target in gradients if target[0] == "step_gradient"}
    extra: list[tuple[Node, Target]] = []
    outers: list[Outer] = []
    for v, gradient, factor in sorted(products, key=lambda p: (p[2].matrix, p[0].number, p[2].row, p[2].column)):
        if gradient not in places:
            places[gradient] = ("outer", 0, sum(node.width for node, _ in extra))
            extra.append((gradient, places[gradient]))
        kind, name, offset = places[gradient]
        left = ("step", *v.attributes, v.width) if v.op == "step" else ("saved", saved.index(v), 0, v.width)
        new = Outer(left, kind, name, offset, gradient.width, factor)
        if outers and _continues(outers[-1], new):
            outers[-1] = Outer(new.left, kind, name, outers[-1].offset, outers[-1].width + new.width, outers[-1].factor)
        else:
            outers.append(new)
    return outers, extra


def _continues(before: Outer, after: Outer) -> bool:
    place = (before.left, before.kind, before.name, before.offset + before.width)
    return (
        place == (after.left, after.kind, after.name, after.offset)
        and before.factor.window(before.width) == after.factor
    )
