"""The row graph: what one step does to one row, as values of known width."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LEAVES = frozenset({"step", "row", "state", "shared", "const", "share", "grad"})
REDUCTIONS = frozenset({"sum", "max"})
COMPARISONS = frozenset({"less", "less_equal", "equal", "not_equal"})
LOGIC = frozenset({"and", "or", "not"})
COSTLY = frozenset({"exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "erf", "pow", "div", "sqrt"})


class Factor(NamedTuple):
    """The window of a matrix that a product multiplies by: its first row and column, and which of them it sums over.

    `v·M`: Σ_k v[k] M[row + k, column + n]; where `turned`, `M·v`: Σ_k v[k] M[row + n, column + k].
    """

    matrix: int
    row: int
    column: int
    turned: bool

    def window(self, offset: int) -> Factor:
        """Return the factor of the results from number `offset` on."""
        if self.turned:
            return self._replace(row=self.row + offset)
        return self._replace(column=self.column + offset)


@dataclass(frozen=True, eq=False)
class Node:
    """A row of `width` numbers. Inputs of width 1 stand for every unit of a wider one.

    - `step` (name, offset), `row` (name, offset), `state` (index, offset), `shared` (index, offset): windows of what
      the step is given; `grad` (index, offset): of the gradient that reaches a new state.
    - `const` (number,); `share` (w,): 1/w.
    - `product`: the sum of the inputs' products, each with its `Factor`.
    - `sum`, `max` over the row; all else is elementwise. `standardised` (x, mean, 1/deviation; width) is
      `(x − mean) · 1/deviation`, whose adjoint knows that the last two are statistics of a row of `width`.
      `stop` passes its input on and no gradient back, `wide` one number to every unit.
    """

    op: str
    width: int
    inputs: tuple[Node, ...] = ()
    attributes: tuple[Any, ...] = ()
    number: int = field(default=0)

    @property
    def is_mask(self) -> bool:
        return self.op in COMPARISONS or self.op in LOGIC

    @property
    def is_leaf(self) -> bool:
        return self.op in LEAVES

    def __repr__(self) -> str:
        return f"%{self.number}:{self.op}[{self.width}]"


class Graph:
    """Makes nodes: equal ones once, constants folded, what changes nothing left out."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Node] = {}
        self._windows: dict[tuple[Node, int, int], Node] = {}
        self._origins: dict[Node, tuple[Node, int]] = {}

    def node(self, op: str, width: int, inputs: Sequence[Node] = (), attributes: tuple[Any, ...] = ()) -> Node:
        """Return the node, which is made only if there is none like it."""
        key = (op, width, tuple(inputs), attributes)
        if key not in self._known:
            self._known[key] = Node(op, width, tuple(inputs), attributes, len(self._known))
        return self._known[key]

    def const(self, number: float) -> Node:
        return self.node("const", 1, (), (float(number),))

    def share(self, width: int) -> Node:
        """Return `1/width`, which code that serves every width reads when it runs."""
        return self.node("share", 1, (), (width,))

    def apply(self, op: str, *inputs: Node) -> Node:
        """Return an elementwise node, simplified."""
        simple = _simplified(self, op, inputs)
        return self.node(op, max(i.width for i in inputs), inputs) if simple is None else simple

    def add(self, a: Node, b: Node) -> Node:
        return self.apply("add", a, b)

    def sub(self, a: Node, b: Node) -> Node:
        return self.apply("sub", a, b)

    def mul(self, a: Node, b: Node) -> Node:
        return self.apply("mul", a, b)

    def div(self, a: Node, b: Node) -> Node:
        return self.apply("div", a, b)

    def scale(self, a: Node, number: float) -> Node:
        return self.mul(a, self.const(number))

    def where(self, mask: Node, a: Node, b: Node) -> Node:
        return a if a is b else self.apply("where", mask, a, b)

    def reduce(self, op: str, v: Node) -> Node:
        """Return the sum or the largest of a row; a row of one number is its own."""
        return v if v.width == 1 else self.node(op, 1, (v,))

    def product(self, terms: Sequence[tuple[Node, Factor]], width: int) -> Node:
        """Return the sum of products, each of a node and a window of a matrix; those of inputs come first."""
        terms = sorted(terms, key=lambda term: term[0].op != "step")
        return self.node("product", width, [v for v, _ in terms], tuple(factor for _, factor in terms))

    def window(self, v: Node, offset: int, width: int) -> Node:
        """Return `width` numbers of `v` from `offset` on: the window of what `v` is made from."""
        if v.width == 1 or (offset == 0 and width == v.width):
            return v
        key = (v, offset, width)
        if key not in self._windows:
            whole, begin = self.origin(v)
            self._windows[key] = self._window(v, offset, width)
            self._origins.setdefault(self._windows[key], (whole, begin + offset))
        return self._windows[key]

    def origin(self, v: Node) -> tuple[Node, int]:
        """Return what `v` is a window of, and where it begins there; itself, if it is none."""
        return self._origins.get(v, (v, 0))

    def wide(self, v: Node, width: int) -> Node:
        """Return `v`, or where it is one number, a row of so many."""
        return v if v.width == width else self.node("wide", width, (v,))

    def gathered(self, a: Node, b: Node) -> Node | None:
        """Return a + b with their products as one, where both are products or sums with one."""
        (first, rest_a), (second, rest_b) = _product_of(a), _product_of(b)
        if first is None or second is None:
            return None
        terms = [(v, f) for n in (first, second) for v, f in zip(n.inputs, n.attributes, strict=True)]
        total = self.product(terms, first.width)
        for rest in (rest_a, rest_b):
            total = total if rest is None else self.node("add", total.width, (total, rest))
        return total

    def unstopped(self, v: Node, known: dict[Node, Node]) -> Node:
        """Return the node without any `stop`, which only the reverse looks at; `known` ones are not made anew."""
        for node in reachable([v], lambda n: () if n in known else n.inputs):
            if node not in known:
                inputs = [known[i] for i in node.inputs]
                stops = node.op == "stop"
                known[node] = inputs[0] if stops else self.node(node.op, node.width, inputs, node.attributes)
        return known[v]

    def _window(self, v: Node, offset: int, width: int) -> Node:
        if v.op == "product":
            return self.node("product", width, v.inputs, tuple(f.window(offset) for f in v.attributes))
        if v.is_leaf:
            source, start = v.attributes
            return self.node(v.op, width, (), (source, start + offset))
        return self.node(v.op, width, [self.window(i, offset, width) for i in v.inputs], v.attributes)


def reachable(roots: Iterable[Node], opened: Callable[[Node], Sequence[Node]] = lambda n: n.inputs) -> list[Node]:
    """Return every node that the roots are made from, inputs first; `opened` may say otherwise what comes first."""
    seen: dict[Node, None] = {}
    for root in roots:
        stack = [(root, iter(opened(root)))]
        while stack:
            node, rest = stack[-1]
            following = next((i for i in rest if i not in seen), None)
            if following is not None:
                stack.append((following, iter(opened(following))))
            else:
                stack.pop()
                seen.setdefault(node)
    return list(seen)


def _product_of(v: Node) -> tuple[Node | None, Node | None]:
    """Take a sum apart into a product and the rest; a product is all of itself."""
    if v.op == "product":
        return v, None
    if v.op == "add":
        for product, rest in (v.inputs, v.inputs[::-1]):
            if product.op == "product" and rest.op != "product":
                return product, rest
    return None, None


_FOLDED: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "div": lambda a, b: a / b,
    "sqrt": math.sqrt,
    "exp": math.exp,
}


def _simplified(graph: Graph, op: str, inputs: tuple[Node, ...]) -> Node | None:
    """Return what an elementwise operation comes to without being done, or None.

    Nothing that a NaN or an infinity could tell apart, except a sum with 0.
    """
    numbers = [i.attributes[0] if i.op == "const" else None for i in inputs]
    known = [number for number in numbers if number is not None]
    if op in _FOLDED and len(known) == len(inputs) and not (op == "div" and known[1] == 0):
        return graph.const(_FOLDED[op](*known))
    if op == "add" and inputs[0].width == inputs[1].width:
        together = graph.gathered(*inputs)
        if together is not None:
            return together
    if op in ("add", "mul"):
        neutral = 0.0 if op == "add" else 1.0
        for number, other in ((numbers[0], inputs[1]), (numbers[1], inputs[0])):
            if number == neutral:
                return other
    if op in ("sub", "div") and numbers[1] == (0.0 if op == "sub" else 1.0):
        return inputs[0]
    if op == "neg" and inputs[0].op == "neg":
        return inputs[0].inputs[0]
    if op == "mul" and numbers[1] is not None and inputs[0].op == "mul" and inputs[0].inputs[1].op == "const":
        inner, factor = inputs[0].inputs
        return graph.scale(inner, factor.attributes[0] * numbers[1])
    if op == "mul" and numbers[0] is not None and numbers[1] is None:
        return graph.mul(inputs[1], inputs[0])
    return None
