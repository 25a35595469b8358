"""The reverse of a step: from the gradients of its new states to those of all it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tidegate.compile.graph import COMPARISONS, LOGIC, REDUCTIONS, Factor, Graph, Node, reachable
from tidegate.compile.saving import choose
from tidegate.compile.trace import Traced

Contributions = list[tuple[Node, Node]]


@dataclass(frozen=True)
class Adjoint:
    """The gradient of every window of what a step reads, and what a product contributes to its matrix.

    `leaves`: window → gradient. `products`: `(v, gradient of the result, factor)` of each. `saved`: nodes of the
    forward step that the reverse needs and does not compute again, in order.
    """

    leaves: dict[Node, Node]
    products: tuple[tuple[Node, Node, Factor], ...]
    saved: tuple[Node, ...]


def reverse(traced: Traced) -> Adjoint:
    """Derive the reverse of a traced step, in the graph of the step itself.

    The gradient that reaches new state i is the leaf `grad` (i, 0). Ties of maximum and minimum share their
    gradient, as in torch.
    """
    graph = traced.graph
    gradients: dict[Node, Node] = {}
    for index, pieces in enumerate(traced.states):
        offset = 0
        for piece in pieces:
            _add(graph, gradients, piece, graph.node("grad", piece.width, (), (index, offset)))
            offset += piece.width
    leaves: dict[Node, Node] = {}
    products: list[tuple[Node, Node, Factor]] = []
    norms = _Norms(graph, [n for pieces in traced.states for n in pieces])
    for node in reversed(norms.order):
        gradient = gradients.pop(node, None)
        gradient = gradient and graph.wide(gradient, node.width)
        if node.op == "standardised":
            contributions = norms.contributions(node, gradient)
        elif gradient is None:
            continue
        elif node.is_leaf:
            leaves |= {} if node.op in ("const", "share") else {node: gradient}
            continue
        else:
            contributions = _contributions(graph, node, gradient)
        if node.op == "product" and gradient is not None:
            products.extend((v, gradient, f) for v, f in zip(node.inputs, node.attributes, strict=True))
        for target, contribution in contributions:
            _add(graph, gradients, target, contribution)
    products = [p for p in products if p[0].op != "const"]
    read = [*leaves.values(), *(gradient for _, gradient, _ in products)]
    return Adjoint(leaves, tuple(products), choose(read, [v for v, _, _ in products]))


def _add(graph: Graph, gradients: dict[Node, Node], target: Node, contribution: Node) -> None:
    """Add to a target's gradient; what a single number stood for in a wide row is summed first."""
    if target.width == 1 and contribution.width > 1:
        contribution = graph.reduce("sum", contribution)
    known = gradients.get(target)
    gradients[target] = contribution if known is None else graph.add(known, contribution)


def _contributions(g: Graph, node: Node, d: Node) -> Contributions:
    """Return what `node`, whose gradient is `d`, gives each of its inputs."""
    if node.op == "product":
        return [
            (v, g.product([(d, f._replace(turned=not f.turned))], v.width))
            for v, f in zip(node.inputs, node.attributes, strict=True)
        ]
    if node.op in COMPARISONS or node.op in LOGIC or node.op == "stop":
        return []
    if node.op in REDUCTIONS:
        return [(node.inputs[0], d if node.op == "sum" else _share_of_largest(g, node, d))]
    return RULES[node.op](g, node, d)


def _share_of_largest(g: Graph, node: Node, d: Node) -> Node:
    ties = g.apply("where", g.apply("equal", node.inputs[0], node), g.const(1.0), g.const(0.0))
    return g.mul(ties, g.div(d, g.reduce("sum", ties)))


class _Norms:
    """The gradients of normalised rows, each of which may stand in several windows.

    `dx = (d − mean(d) − y·mean(d·y)) / deviation` (the derivative of Ba et al. 2016, equation 4): the means are over
    the whole row, so nothing is given back before the last of a row's windows has its gradient. `order` has all that
    the windows of a row are made from before any of them.
    """

    def __init__(self, graph: Graph, roots: Sequence[Node]) -> None:
        self._graph = graph
        self._waiting: dict[Sequence[Node], list[Node]] = {}
        self._ready: dict[Sequence[Node], Contributions] = {}
        for node in reachable(roots):
            if node.op == "standardised":
                self._waiting.setdefault(node.inputs[1:], []).append(node)
        # Rows of which not every unit is read, or some twice.
        self._apart = {row: graph.origin(each[0])[0] for row, each in self._waiting.items() if not _tile(graph, each)}
        for row, whole in self._apart.items():
            self._waiting[row] += [whole] * (whole not in self._waiting[row])
        self._rows = {row: tuple(each) for row, each in self._waiting.items()}
        inputs = {row: [n for window in windows for n in window.inputs] for row, windows in self._rows.items()}
        self.order = reachable(
            [*roots, *self._apart.values()],
            lambda n: inputs[n.inputs[1:]] if n.op == "standardised" else n.inputs,
        )

    def contributions(self, node: Node, d: Node | None) -> Contributions:
        """Take the gradient of one window; return what the row gives its windows' inputs, or nothing yet."""
        row = node.inputs[1:]
        ready = self._ready.setdefault(row, [])
        if d is not None:
            ready.append((node, d))
        self._waiting[row].remove(node)
        return self._whole(row, ready) if ready and not self._waiting[row] else []

    def _whole(self, row: Sequence[Node], windows: Contributions) -> Contributions:
        g = self._graph
        share = g.share(windows[0][0].attributes[0])
        mean, slope = (
            g.mul(_total(g, each), share) for each in ([d for _, d in windows], [g.mul(d, y) for y, d in windows])
        )
        whole = self._apart.get(row)
        if whole is None:
            given, none = dict(windows), g.const(0.0)
            each_d = [(y, given.get(y, none)) for y in self._rows[row]]
            return [(y.inputs[0], g.mul(g.sub(g.sub(d, mean), g.mul(y, slope)), y.inputs[2])) for y, d in each_d]
        through = g.apply("neg", g.add(mean, g.mul(whole, slope)))
        direct = [(y.inputs[0], g.mul(d, y.inputs[2])) for y, d in windows]
        return [*direct, (whole.inputs[0], g.mul(through, whole.inputs[2]))]


def _tile(g: Graph, windows: Sequence[Node]) -> bool:
    """Whether each unit of a normalised row is in one of its windows."""
    end = 0
    for begin, width in sorted((g.origin(y)[1], y.width) for y in windows):
        if begin != end:
            return False
        end += width
    return bool(end == windows[0].attributes[0])


def _total(g: Graph, nodes: Iterable[Node]) -> Node:
    """Return the sum of rows over all their units; rows of one width are added first, to be summed once."""
    by_width: dict[int, Node] = {}
    for node in nodes:
        known = by_width.get(node.width)
        by_width[node.width] = node if known is None else g.add(known, node)
    first, *rest = [g.reduce("sum", node) for node in by_width.values()]
    for node in rest:
        first = g.add(first, node)
    return first


def _where(g: Graph, node: Node, d: Node) -> Contributions:
    mask, a, b = node.inputs
    zero = g.const(0.0)
    return [(a, g.where(mask, d, zero)), (b, g.where(mask, zero, d))]


def _larger(g: Graph, node: Node, d: Node) -> Contributions:
    """Give the gradient to the input that was chosen, half to each where they tie."""
    a, b = node.inputs
    behind = {a: (b, a), b: (a, b)} if node.op == "maximum" else {a: (a, b), b: (b, a)}
    zero, half = g.const(0.0), g.scale(d, 0.5)
    tie = g.apply("equal", a, b)
    return [(v, g.where(tie, half, g.where(g.apply("less", *behind[v]), d, zero))) for v in (a, b)]


def _abs(g: Graph, node: Node, d: Node) -> Contributions:
    x = node.inputs[0]
    zero = g.const(0.0)
    positive = g.where(g.apply("less", zero, x), d, zero)
    return [(x, g.where(g.apply("less", x, zero), g.apply("neg", d), positive))]


def _div(g: Graph, node: Node, d: Node) -> Contributions:
    a, b = node.inputs
    to_a = g.div(d, b)
    return [(a, to_a), (b, g.apply("neg", g.mul(to_a, node)))]


Rule = Callable[[Graph, Node, Node], Contributions]


def _of_input(slope: Callable[[Graph, Node], Node]) -> Rule:
    """Make the rule of a function of one input from its derivative at the input."""
    return lambda g, node, d: [(node.inputs[0], g.mul(d, slope(g, node.inputs[0])))]


def _of_result(slope: Callable[[Graph, Node], Node]) -> Rule:
    """Make the rule of a function of one input from its derivative, given the result."""
    return lambda g, node, d: [(node.inputs[0], g.mul(d, slope(g, node)))]


def _inverse(g: Graph, x: Node) -> Node:
    return g.div(g.const(1.0), x)


RULES: dict[str, Rule] = {
    "add": lambda _, n, d: [(n.inputs[0], d), (n.inputs[1], d)],
    "sub": lambda g, n, d: [(n.inputs[0], d), (n.inputs[1], g.apply("neg", d))],
    "mul": lambda g, n, d: [(n.inputs[0], g.mul(d, n.inputs[1])), (n.inputs[1], g.mul(d, n.inputs[0]))],
    "div": _div,
    "where": _where,
    "maximum": _larger,
    "minimum": _larger,
    "abs": _abs,
    "neg": lambda g, n, d: [(n.inputs[0], g.apply("neg", d))],
    "exp": _of_result(lambda _, y: y),
    "expm1": _of_result(lambda g, y: g.add(y, g.const(1.0))),
    "log": _of_input(_inverse),
    "log1p": _of_input(lambda g, x: _inverse(g, g.add(x, g.const(1.0)))),
    "tanh": _of_result(lambda g, y: g.sub(g.const(1.0), g.mul(y, y))),
    "sigmoid": _of_result(lambda g, y: g.mul(y, g.sub(g.const(1.0), y))),
    "sin": _of_input(lambda g, x: g.apply("cos", x)),
    "cos": _of_input(lambda g, x: g.apply("neg", g.apply("sin", x))),
    "erf": _of_input(lambda g, x: g.scale(g.apply("exp", g.apply("neg", g.mul(x, x))), 2 / math.sqrt(math.pi))),
    "sqrt": _of_result(lambda g, y: g.div(g.const(0.5), y)),
}
"""The gradient of every elementwise operation."""
