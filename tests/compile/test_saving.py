"""What is saved for the reverse: enough to make all that it reads, and no less will do."""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from tidegate.compile.graph import REDUCTIONS, Factor, Graph, Node, reachable
from tidegate.compile.saving import _GIVEN, SHALLOW, _must_keep, choose


def makes(saved: set[Node], wanted: Node) -> bool:
    """Whether a node can be made from what is saved and what is given, by cheap operations alone."""
    if wanted in saved or wanted.op in _GIVEN:
        return True
    again = of_few_inputs(wanted) or not _must_keep(wanted)
    return again and all(makes(saved, i) for i in wanted.inputs)


def of_few_inputs(node: Node) -> bool:
    """Whether no state, statistic or product of many inputs went into a node."""
    if node.op == "state" or node.op in REDUCTIONS:
        return False
    shallow = node.op != "product" or sum(i.width for i in node.inputs) <= SHALLOW
    return shallow and all(of_few_inputs(i) for i in node.inputs)


def least(read: list[Node], free: set[Node]) -> int:
    """The least width that does, by trying every choice."""
    nodes = [n for n in reachable(read) if n.op not in _GIVEN and n not in free]
    choices = chain.from_iterable(combinations(nodes, size) for size in range(len(nodes) + 1))
    return min(sum(n.width for n in each) for each in choices if all(makes({*each, *free}, r) for r in read))


def graphs() -> dict[str, tuple[Graph, list[Node], list[Node]]]:
    """Graphs, what their reverse reads, and what products multiply."""
    found = {}
    g = Graph()
    h, s = (g.node("state", 4, (), (i, 0)) for i in range(2))
    gate = g.apply("sigmoid", g.node("step", 4, (), ("x", 0)))
    n = g.apply("tanh", g.add(h, s))
    found["differences share what they are made from"] = g, [g.sub(h, s), g.sub(n, s), g.mul(n, n), gate], [h]
    g = Graph()
    a, b, c = (g.apply("exp", g.node("state", width, (), (i, 0))) for i, width in enumerate((4, 4, 4)))
    found["one sum of three"] = g, [g.add(g.add(a, b), c)], []
    g = Graph()
    x = g.node("state", 6, (), (0, 0))
    mean = g.mul(g.reduce("sum", x), g.share(6))
    found["a row's statistic"] = g, [g.sub(x, mean), g.mul(g.sub(x, mean), g.const(2.0))], []
    g = Graph()
    x = g.node("step", 3, (), ("x", 0))
    found["what is given"] = g, [g.mul(x, x)], []
    g = Graph()
    mask, h = g.node("row", 3, (), ("hidden_mask", 0)), g.node("state", 3, (), (0, 0))
    found["a mask that is multiplied"] = g, [g.mul(h, mask), g.apply("stop", h)], [mask]
    for depth in (SHALLOW, SHALLOW + 1):
        g = Graph()
        product = g.product([(g.node("step", depth, (), ("x", 0)), Factor(0, 0, 0, False))], 4)
        h = g.node("state", 4, (), (0, 0))
        gate, mixed = g.apply("sigmoid", product), g.apply("tanh", g.add(product, h))
        found[f"a gate of {depth} inputs"] = g, [gate, h, mixed], []
    return found


GRAPHS = graphs()


@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_enough_and_the_least(name: str) -> None:
    g, read, multiplied = GRAPHS[name]
    gradient = [g.mul(g.node("grad", r.width, (), (0, n)), r) for n, r in enumerate(read)]
    saved = choose(gradient, multiplied)
    assert set(multiplied) <= set(saved)
    assert all(makes(set(saved), r) for r in read)
    extra = sum(n.width for n in saved if n not in multiplied)
    assert extra == least(read, set(multiplied))


def test_what_is_read_is_saved_rather_than_made_again_at_the_same_cost() -> None:
    g = Graph()
    n = g.apply("tanh", g.node("state", 4, (), (0, 0)))
    slope = g.sub(g.const(1.0), g.mul(n, n))
    assert choose([g.mul(g.node("grad", 4, (), (0, 0)), slope)], []) == (slope,)


def test_what_few_inputs_make_is_made_again() -> None:
    def saved(depth: int) -> list[str]:
        g, read, _ = GRAPHS[f"a gate of {depth} inputs"]
        return sorted(n.op for n in choose([g.mul(g.node("grad", 4, (), (0, 0)), r) for r in read], []))

    assert saved(SHALLOW) == ["state", "tanh"]
    assert saved(SHALLOW + 1) == ["sigmoid", "state", "tanh"]


def test_which_number_was_the_largest_is_saved() -> None:
    """Made again, a number may be rounded otherwise, and no number be the largest."""
    g = Graph()
    row = g.mul(g.node("state", 4, (), (0, 0)), g.node("step", 4, (), ("x", 0)))
    largest = g.apply("equal", row, g.reduce("max", row))
    gradient = g.where(largest, g.node("grad", 4, (), (0, 0)), g.const(0.0))
    assert choose([gradient], []) == (largest,)
