"""Elementary functions of vectors by name."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from tidegate.compile.llvm.exponential import exp, expm1, log, log1p, sigmoid, tanh

FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    function.__name__: function for function in (exp, expm1, log, log1p, sigmoid, tanh)
}
