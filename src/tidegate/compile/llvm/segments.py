"""Where the segments of a row begin that a reset sets apart, and the loop over them, as IR."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, POINTER
from tidegate.compile.llvm.tile import Loop

BYTE = ir.IntType(8)


@contextmanager
def turns(builder: ir.IRBuilder, start: ir.Value, going: Callable[[ir.Value], ir.Value]) -> Iterator[Loop]:
    """Loop while `going(counter)` holds; the body puts the next counter into `following`."""
    entry = builder.block
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    loop = Loop(builder.phi(start.type), [])
    loop.counter.add_incoming(start, entry)
    builder.cbranch(going(loop.counter), body, end)
    builder.position_at_end(body)
    yield loop
    loop.counter.add_incoming(loop.following[0], builder.block)
    builder.branch(head)
    builder.position_at_end(end)


def define_search(module: ir.Module, name: str, step: int) -> ir.Function:
    """Define `search(resets, t, limit)`: the nearest step after (or before) t with a reset, or else `limit`.

    Forwards the limit is the end of the steps, backwards the first of them. Without resets it is the answer.
    """
    function = ir.Function(module, ir.FunctionType(INDEX, [POINTER, INDEX, INDEX]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    resets, t, limit = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    head, look, end = (builder.append_basic_block(name) for name in ("head", "look", "end"))
    absent = builder.icmp_unsigned("==", builder.ptrtoint(resets, INDEX), INDEX(0))
    entry, first = builder.block, builder.add(t, INDEX(step))
    builder.cbranch(absent, end, head)
    builder.position_at_end(head)
    at = builder.phi(INDEX)
    builder.cbranch(builder.icmp_signed("<" if step > 0 else ">", at, limit), look, end)
    builder.position_at_end(look)
    flag = builder.load(builder.gep(resets, [at], source_etype=BYTE), align=1, typ=BYTE)
    at.add_incoming(first, entry)
    at.add_incoming(builder.add(at, INDEX(step)), look)
    found = builder.icmp_unsigned("!=", flag, BYTE(0))
    builder.cbranch(found, end, head)
    builder.position_at_end(end)
    answer = builder.phi(INDEX)
    for value, block in ((limit, entry), (limit, head), (at, look)):
        answer.add_incoming(value, block)
    builder.ret(answer)
    return function
