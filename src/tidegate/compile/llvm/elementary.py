"""Elementary functions of vectors by name, each `f(v, x)`, the power `f(v, x, y)`.

All are straight lines of IR, without tables, branches or calls; NaN goes through.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from tidegate.compile.llvm.error_function import erf
from tidegate.compile.llvm.exponential import exp, expm1, log, log1p, sigmoid, tanh
from tidegate.compile.llvm.power import power
from tidegate.compile.llvm.trigonometric import cos, sin

FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    "cos": cos,
    "erf": erf,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "pow": power,
    "sigmoid": sigmoid,
    "sin": sin,
    "tanh": tanh,
}
