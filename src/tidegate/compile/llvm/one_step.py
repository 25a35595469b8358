"""One step of a stack of cells as a function that Python calls, as IR.

A step of few rows takes about a microsecond; to check in Python what it is given, and where the weights are, would take
several.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from llvmlite import ir

from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER
from tidegate.compile.llvm.python import Python, offer
from tidegate.compile.llvm.python import function as python_function
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import steps

STEP, STEP_IN_PLACE = "step", "step_in_place"

OBJECTS = (
    "Tensor", "Exception", "True", "False", "None", "dtype", "'dtype'", "'shape'", "'is_cpu'", "'nbytes'",
    "'changes'", "data_ptr", "is_neg", "is_contiguous", "empty_like", "shape", "output",
)  # fmt: skip
"""The objects that the table begins with: types, singletons, the numbers' dtype, names, functions, and what x and the
output are like."""

LISTS = ("guards", "attributes", "entries", "owners", "cells", "parameters", "states", "layers")
"""What the table says next: where each list begins, and how many entries it has."""

GUARD, ATTRIBUTE, ENTRY = ("function", "expected"), ("object", "name", "expected"), ("names", "name", "expected")
"""What a function without arguments must return, what an attribute must be, and what must stand in a dictionary by a
name: that very object, or 0 for nothing."""

OWNER = ("names", "count")
"""The parameters of a module that lends its own, by name, and how many they are."""
CELL = ("cell", "changes")
PARAMETER = ("names", "name", "parameter", "address", "bytes")
"""Where a parameter is found, by name; which one it is, where its numbers are, and how many bytes they take."""
STATE = ("like", "shape", "before", "after", "apart", "made")
"""What a state is like, and where it stands before and after the step, for the first layer: those of the others follow,
so many bytes apart. What is made to hold it stands in the table until it is given out."""
LAYER = ("kernel", "argument")

HEAD = (*OBJECTS, *(field for name in LISTS for field in (name, f"number of {name}")))
_RECORDS = {
    "guards": GUARD, "attributes": ATTRIBUTE, "entries": ENTRY, "owners": OWNER, "cells": CELL, "parameters": PARAMETER,
    "states": STATE, "layers": LAYER,
}  # fmt: skip
_WORD = 8


def table(
    objects: Mapping[str, object], lists: Mapping[str, Sequence[tuple[int, ...]]]
) -> tuple[array[int], dict[str, int]]:
    """Return a table of `OBJECTS` and `LISTS`, and at which word of it each list begins. It must stay where it is."""
    words, begins = [id(objects[name]) for name in OBJECTS] + [0] * (2 * len(LISTS)), {}
    for name in LISTS:
        begins[name] = len(words)
        words += [word for entry in lists[name] for word in entry]
    found = array("q", words)
    first, size = found.buffer_info()[0], found.itemsize
    for number, name in enumerate(LISTS):
        at = len(OBJECTS) + 2 * number
        found[at], found[at + 1] = first + begins[name] * size, len(lists[name])
    return found, begins


def function(target: Target, told: array[int], *, in_place: bool) -> Callable[..., Any]:
    """Return what Python calls to take one step, told a table of the cells.

    `step(cells, x, *states)`, with the cells by name, returns (output, *states): those before the step are left as they
    are. `step(cells, x)`, `in_place`, overwrites the states that the table says, and returns the output. Both return
    None, and have changed nothing, where anything is not as the table has it, or an error says that it cannot be done;
    what is no error, as an interrupt, is raised. Python's lock is free while kernels run.

    A kernel's argument begins with two counters, the addresses of its input and output, of the states before, and of
    those after.
    """
    name = STEP_IN_PLACE if in_place else STEP
    return python_function(name, _compiled(target)[name], told.buffer_info()[0])


@cache
def _compiled(target: Target) -> dict[str, int]:
    offer()
    text = written("one step", lambda: str(_module(target)))
    return compile_module(text, (STEP, STEP_IN_PLACE), target).addresses


def _module(target: Target) -> ir.Module:
    module = ir.Module("one step")
    module.triple = target.triple
    for name in (STEP, STEP_IN_PLACE):
        _define(module, name)
    return module


def _define(module: ir.Module, name: str) -> None:
    function = ir.Function(module, ir.FunctionType(POINTER, [POINTER, POINTER, INDEX]), name)
    told, arguments, count = function.args
    start, refused = (function.append_basic_block(block) for block in ("start", "refused"))
    b = ir.IRBuilder(start)
    python = Python(b, refused)
    table = _Record(b, b.inttoptr(python.call("PyLong_AsSize_t", told), POINTER), HEAD)
    step = _Step(b, python, table)
    expected = INDEX(2) if name == STEP_IN_PLACE else b.add(table.number("number of states"), INDEX(2))
    python.require(b.icmp_unsigned("==", count, expected))
    step.check_guards()
    step.check_cells(arguments)
    step.check_parameters()
    x = _at(b, arguments, INDEX(1))
    step.check(x, table.object("shape"))
    source = step.address(x)
    if name == STEP:
        step.read_states(_at(b, arguments, INDEX(2)))
        step.make_states()
    out = step.make_output()
    step.run(source, out)
    b.ret(step.given_out(name == STEP_IN_PLACE))
    b.position_at_end(refused)
    step.let_go()
    pending, stop = (function.append_basic_block(block) for block in ("pending", "stop"))
    nothing = function.append_basic_block("nothing")
    b.cbranch(b.icmp_unsigned("!=", python.call("PyErr_Occurred"), POINTER(None)), pending, nothing)
    b.position_at_end(pending)
    plain = python.call("PyErr_ExceptionMatches", table.object("Exception"))
    b.cbranch(b.icmp_signed("!=", plain, plain.type(0)), nothing, stop)
    b.position_at_end(stop)
    b.ret(POINTER(None))
    b.position_at_end(nothing)
    python.call("PyErr_Clear")
    python.call("Py_IncRef", table.object("None"))
    b.ret(table.object("None"))


def _at(builder: ir.IRBuilder, words: ir.Value, number: ir.Value) -> ir.Value:
    """Return the place of one of many words."""
    return builder.gep(words, [number], source_etype=INDEX)


def _object(builder: ir.IRBuilder, place: ir.Value) -> ir.Value:
    return builder.load(place, align=_WORD, typ=POINTER)


class _Code(ir.PointerType):
    """The address of a `void f(void *)`: written as any other, but it may be called."""

    pointee = ir.FunctionType(ir.VoidType(), [POINTER])


class _Record:
    """Words in memory, by the names of their fields."""

    def __init__(self, builder: ir.IRBuilder, address: ir.Value, fields: Sequence[str]) -> None:
        self._builder = builder
        self.address = address
        self._fields = fields

    def place(self, field: str) -> ir.Value:
        """Return where a field stands."""
        return _at(self._builder, self.address, INDEX(self._fields.index(field)))

    def number(self, field: str) -> ir.Value:
        return self._builder.load(self.place(field), align=_WORD, typ=INDEX)

    def object(self, field: str) -> ir.Value:
        return _object(self._builder, self.place(field))

    def code(self, field: str) -> ir.Value:
        return self._builder.load(self.place(field), align=_WORD, typ=_Code())

    def write(self, field: str, number: ir.Value) -> None:
        self._builder.store(number, self.place(field), align=_WORD)


class _Step:
    """What a step does, in order."""

    def __init__(self, builder: ir.IRBuilder, python: Python, table: _Record) -> None:
        self._builder = builder
        self._python = python
        self._table = table
        self._output, self._tuple = builder.alloca(POINTER), builder.alloca(POINTER)
        for place in (self._output, self._tuple):
            builder.store(POINTER(None), place)
        self._name, self._cell = builder.alloca(POINTER), builder.alloca(POINTER)
        self._position, self._read = builder.alloca(INDEX), builder.alloca(INDEX)

    def check_guards(self) -> None:
        """Require what guards, attributes and entries say."""
        python = self._python
        with self._each("guards") as (_, guard):
            nothing = POINTER(None)
            found = python.call("PyObject_Vectorcall", guard.object("function"), nothing, INDEX(0), nothing)
            python.same_new(found, guard.object("expected"))
        with self._each("attributes") as (_, attribute):
            found = python.call("PyObject_GetAttr", attribute.object("object"), attribute.object("name"))
            python.same_new(found, attribute.object("expected"))
        with self._each("entries") as (_, entry):
            found = python.call("PyDict_GetItemWithError", entry.object("names"), entry.object("name"))
            python.same(found, entry.object("expected"))

    def check_cells(self, place: ir.Value) -> None:
        """Require, by name at `place`, the table's cells, of which nothing was set, and owners that lend as before."""
        b, python, table = self._builder, self._python, self._table
        with self._each("owners") as (_, owner):
            held = python.call("PyDict_Size", owner.object("names"))
            python.require(b.icmp_signed("==", held, owner.number("count")))
        cells = _object(b, place)
        held = python.call("PyDict_Size", cells)
        python.require(b.icmp_signed("==", held, table.number("number of cells")))
        b.store(INDEX(0), self._position)
        with self._each("cells") as (_, record):
            going = python.call("PyDict_Next", cells, self._position, self._name, self._cell)
            python.require(b.icmp_signed("!=", going, going.type(0)))
            cell = _object(b, self._cell)
            python.same(cell, record.object("cell"))
            changes = python.number_of_new(python.call("PyObject_GetAttr", cell, table.object("'changes'")))
            python.require(b.icmp_unsigned("==", changes, record.number("changes")))

    def check_parameters(self) -> None:
        """Require the parameters of the table, dense, with their numbers where they were."""
        b, python, table = self._builder, self._python, self._table
        with self._each("parameters") as (_, record):
            names, name = record.object("names"), record.object("name")
            python.same(python.call("PyDict_GetItemWithError", names, name), record.object("parameter"))
            place = record.place("parameter")
            python.require(b.icmp_unsigned("==", self.address(place), record.number("address")))
            python.same_new(python.called(table.object("is_contiguous"), place), table.object("True"))
            size = python.number_of_new(python.call("PyObject_GetAttr", _object(b, place), table.object("'nbytes'")))
            python.require(b.icmp_unsigned("==", size, record.number("bytes")))

    def check(self, place: ir.Value, shape: ir.Value) -> None:
        """Require a plain, dense tensor of a shape and the table's dtype on the CPU."""
        python, table = self._python, self._table
        tensor = _object(self._builder, place)
        python.same_new(python.call("PyObject_Type", tensor), table.object("Tensor"))
        for name, expected in (("'dtype'", "dtype"), ("'is_cpu'", "True")):
            python.same_new(python.call("PyObject_GetAttr", tensor, table.object(name)), table.object(expected))
        python.equal_new(python.call("PyObject_GetAttr", tensor, table.object("'shape'")), shape)
        for name, expected in (("is_contiguous", "True"), ("is_neg", "False")):
            python.same_new(python.called(table.object(name), place), table.object(expected))

    def address(self, place: ir.Value) -> ir.Value:
        """Return where the numbers of a tensor begin."""
        return self._python.number_of_new(self._python.called(self._table.object("data_ptr"), place))

    def read_states(self, given: ir.Value) -> None:
        """Check the states given, and note where they are."""
        with self._each("states") as (number, state):
            place = _at(self._builder, given, number)
            self.check(place, state.object("shape"))
            state.write("before", self.address(place))

    def make_states(self) -> None:
        """Make what holds the states after the step."""
        with self._each("states") as (_, state):
            self._builder.store(self._new(state.place("like")), state.place("made"), align=_WORD)
            state.write("after", self.address(state.place("made")))

    def make_output(self) -> ir.Value:
        """Make the output; return where its numbers begin."""
        self._builder.store(self._new(self._table.place("output")), self._output)
        return self.address(self._output)

    def given_out(self, alone: bool) -> ir.Value:
        """Return the output, or, unless it is given out alone, a tuple of it and the states.

        Other threads may look at a tuple as soon as it is there: it is filled without letting any run.
        """
        b, python = self._builder, self._python
        if alone:
            return _object(b, self._output)
        count = b.add(self._table.number("number of states"), INDEX(1))
        b.store(python.there(python.call("PyTuple_New", count)), self._tuple)
        self._give(INDEX(0), self._output)
        with self._each("states") as (number, state):
            self._give(b.add(number, INDEX(1)), state.place("made"))
        return _object(b, self._tuple)

    def _give(self, number: ir.Value, place: ir.Value) -> None:
        """Move an object from its place into the tuple."""
        b, python = self._builder, self._python
        given = _object(b, place)
        b.store(POINTER(None), place, align=_WORD)
        failed = python.call("PyTuple_SetItem", _object(b, self._tuple), number, given)
        python.require(b.icmp_signed("==", failed, failed.type(0)))

    def let_go(self) -> None:
        """Let go of all that was made."""
        b, python = self._builder, self._python
        for place in (self._output, self._tuple):
            python.call("Py_DecRef", _object(b, place))
        with self._each("states") as (_, state):
            made = state.place("made")
            python.call("Py_DecRef", _object(b, made))
            b.store(POINTER(None), made, align=_WORD)

    def _new(self, like: ir.Value) -> ir.Value:
        return self._python.there(self._python.called(self._table.object("empty_like"), like))

    def run(self, source: ir.Value, out: ir.Value) -> None:
        """Run one layer's kernel after the other: each reads what the one below gives out, its first state."""
        b = self._builder
        count = self._table.number("number of states")
        befores, afters = INDEX(4), b.add(count, INDEX(4))
        lock = self._python.call("PyEval_SaveThread")
        b.store(source, self._read)
        with self._each("layers") as (layer, record):
            argument = record.object("argument")
            read = b.load(self._read, align=_WORD, typ=INDEX)
            for place, number in enumerate((INDEX(0), INDEX(0), read, out)):
                b.store(number, _at(b, argument, INDEX(place)), align=_WORD)
            with self._each("states") as (number, state):
                for field, first in (("before", befores), ("after", afters)):
                    address = b.add(state.number(field), b.mul(layer, state.number("apart")))
                    b.store(address, _at(b, argument, b.add(first, number)), align=_WORD)
            b.store(b.load(_at(b, argument, afters), align=_WORD, typ=INDEX), self._read)
            b.call(record.code("kernel"), [argument])
        self._python.call("PyEval_RestoreThread", lock)

    @contextmanager
    def _each(self, name: str) -> Iterator[tuple[ir.Value, _Record]]:
        """Loop over the entries of a list of the table."""
        fields, first = _RECORDS[name], self._table.object(name)
        with steps(self._builder, INDEX(0), self._table.number(f"number of {name}"), 1) as loop:
            begin = self._builder.mul(loop.counter, INDEX(len(fields)))
            yield loop.counter, _Record(self._builder, _at(self._builder, first, begin), fields)
