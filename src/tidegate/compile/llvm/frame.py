"""What a kernel is told when it runs: numbers and addresses in one array, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, POINTER

Name: TypeAlias = tuple[Any, ...]


@contextmanager
def taking(builder: ir.IRBuilder, frame: Frame, count: ir.Value) -> Iterator[ir.Value]:
    """Loop over the items below `count` that no other thread has taken, by the counter in the slot `taken`."""
    head, body, end = (builder.append_basic_block(name) for name in ("take", "item", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    item = builder.atomic_rmw("add", frame.slot("taken"), INDEX(1), "monotonic")
    builder.cbranch(builder.icmp_signed("<", item, count), body, end)
    builder.position_at_end(body)
    yield item
    builder.branch(head)
    builder.position_at_end(end)


class Size(int):
    """A size or offset in a name: the code reads it when it runs and serves every other as well."""


class Frame:
    """The slots of a kernel's one argument, an array of 64-bit integers; each is read once, when the function begins.

    `names` says, in order, what stands in each slot, those given first; whoever runs the kernel fills them in.
    `builder` writes into the function's first block, whose values are known everywhere; `begin` ends it.
    """

    def __init__(self, function: ir.Function, first: Sequence[Name] = ()) -> None:
        self.names = list(first)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self._argument = function.args[0]
        self._values: dict[tuple[Name, bool], ir.Value] = {}

    def begin(self, block: ir.Block) -> None:
        """Go from the first block, now complete, to `block`."""
        self.builder.branch(block)

    def index(self, *name: Any) -> ir.Value:
        """Return the integer in the slot `name`."""
        return self._read(name, INDEX)

    def pointer(self, *name: Any) -> ir.Value:
        """Return the address in the slot `name`."""
        return self._read(name, POINTER)

    def slot(self, *name: Any) -> ir.Value:
        """Return the address of the slot `name` itself."""
        if name not in self.names:
            self.names.append(name)
        offset = INDEX(self.names.index(name))
        return self.builder.gep(self._argument, [offset], inbounds=True, source_etype=INDEX)

    def number(self, number: int) -> ir.Value:
        """Return a size or offset, which is not part of the code: one kernel serves all sizes."""
        return INDEX(0) if number == 0 else self.index("number", Size(number))

    def _read(self, name: Name, kind: ir.Type) -> ir.Value:
        key = (name, kind is INDEX)
        if key not in self._values:
            self._values[key] = self.builder.load(self.slot(*name), align=8, typ=kind)
        return self._values[key]
