"""Python's C interface, for code that Python calls and that calls Python, as IR.

Only documented functions of CPython are used, and no layout of its objects is known here.
"""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir

from tidegate.compile.llvm import engine
from tidegate.compile.llvm.lanes import INDEX, POINTER

IS_THERE = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
"""Whether this Python has the interface, and one lock, without which what is borrowed may go."""

_INT, _NOTHING = ir.IntType(32), ir.VoidType()
_FUNCTIONS: dict[str, tuple[ir.Type, list[ir.Type]]] = {
    "PyDict_GetItemWithError": (POINTER, [POINTER, POINTER]),
    "PyDict_Next": (_INT, [POINTER, POINTER, POINTER, POINTER]),
    "PyDict_Size": (INDEX, [POINTER]),
    "PyErr_Clear": (_NOTHING, []),
    "PyErr_ExceptionMatches": (_INT, [POINTER]),
    "PyErr_Occurred": (POINTER, []),
    "PyEval_RestoreThread": (_NOTHING, [POINTER]),
    "PyEval_SaveThread": (POINTER, []),
    "PyLong_AsSize_t": (INDEX, [POINTER]),
    "PyObject_GetAttr": (POINTER, [POINTER, POINTER]),
    "PyObject_RichCompareBool": (_INT, [POINTER, POINTER, _INT]),
    "PyObject_Type": (POINTER, [POINTER]),
    "PyObject_Vectorcall": (POINTER, [POINTER, POINTER, INDEX, POINTER]),
    "PyTuple_New": (POINTER, [INDEX]),
    "PyTuple_SetItem": (_INT, [POINTER, INDEX, POINTER]),
    "Py_DecRef": (_NOTHING, [POINTER]),
    "Py_IncRef": (_NOTHING, [POINTER]),
}
_EQUAL, _BY_VECTOR = 2, 0x80  # Py_EQ, METH_FASTCALL


class _Method(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    ]  # fmt: skip


def function(name: str, address: int, told: int) -> Callable[..., Any]:
    """Return what Python calls as `name`: `PyObject *f(PyObject *told, PyObject *const *arguments, ssize_t count)`.

    The code lies at `address` and is given the number `told` first. There are as many functions as are asked for.
    """
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
        ("PyCFunction_NewEx", ctypes.pythonapi)
    )
    return make(ctypes.byref(_method(name, address)), told, None)


@cache
def _method(name: str, address: int) -> _Method:
    """Return what must stay where it is for as long as any function made of it."""
    return _Method(name.encode(), address, _BY_VECTOR, None)


@cache
def offer() -> None:
    """Let modules call what `Python` emits calls of."""
    for name in _FUNCTIONS:
        engine.symbol(name, ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0)


class Python:
    """Emit calls of Python, and go to the block `refused` where one fails or finds something else than expected.

    Objects are addresses; a `place` is where an object's address stands. What is returned is borrowed, unless it is
    said to be new.
    """

    def __init__(self, builder: ir.IRBuilder, refused: ir.Block) -> None:
        self.builder = builder
        self._refused = refused

    def call(self, name: str, *arguments: ir.Value) -> ir.Value:
        """Call the function of that name."""
        module = self.builder.module
        if name not in module.globals:
            ir.Function(module, ir.FunctionType(*_FUNCTIONS[name]), name)
        return self.builder.call(module.globals[name], arguments)

    def require(self, holds: ir.Value) -> None:
        """Go on only where this holds."""
        following = self.builder.append_basic_block("following")
        self.builder.cbranch(holds, following, self._refused)
        self.builder.position_at_end(following)

    def there(self, found: ir.Value) -> ir.Value:
        """Require an object, not an error."""
        self.require(self.builder.icmp_unsigned("!=", found, POINTER(None)))
        return found

    def same(self, found: ir.Value, expected: ir.Value) -> None:
        """Require that what is borrowed is the object expected."""
        self.require(self.builder.icmp_unsigned("==", found, expected))

    def same_new(self, found: ir.Value, expected: ir.Value) -> None:
        """Require that what is new is the object expected, which is held elsewhere; let go of it."""
        self.call("Py_DecRef", found)  # of nothing, too, where there is an error
        self.same(found, expected)

    def equal_new(self, found: ir.Value, expected: ir.Value) -> None:
        """Require that what is new equals an object; let go of it."""
        equal = self.call("PyObject_RichCompareBool", self.there(found), expected, _INT(_EQUAL))
        self.call("Py_DecRef", found)
        self.require(self.builder.icmp_signed("==", equal, _INT(1)))

    def number_of_new(self, found: ir.Value) -> ir.Value:
        """Return the whole number, not below 0, that what is new stands for; let go of it."""
        number = self.call("PyLong_AsSize_t", self.there(found))
        self.call("Py_DecRef", found)
        self.require(self.builder.icmp_signed("!=", number, INDEX(-1)))
        return number

    def called(self, callee: ir.Value, place: ir.Value) -> ir.Value:
        """Return what `callee` returns, new, for the one object at a place."""
        return self.call("PyObject_Vectorcall", callee, place, INDEX(1), POINTER(None))
