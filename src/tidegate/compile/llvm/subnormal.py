"""Numbers too small to be normal: what they cost, and how kernels are spared it."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from tidegate.compile.llvm.lanes import POINTER, intrinsic

_WORD, _WIDE = ir.IntType(32), ir.IntType(64)
# x86: bit 15 writes subnormal results as 0, bit 6 reads subnormal operands as 0. 64-bit ARM: bit 24 does both.
_X86, _ARM = 1 << 15 | 1 << 6, 1 << 24


class Flushed:
    """The processor counts subnormal numbers as 0, whether read or written; `end` leaves it as it was found.

    Gradients that vanish, and states that decay, pass through them on their way to 0, and every operation on one may
    take a hundred times as long as on another number. Elsewhere than on x86-64 and 64-bit ARM nothing is changed.
    """

    def __init__(self, builder: ir.IRBuilder) -> None:
        self._builder = builder
        arch = builder.module.triple.partition("-")[0]
        modes = {"x86_64": self._x86, "amd64": self._x86, "aarch64": self._arm, "arm64": self._arm}
        self._restore: Callable[[], None] = modes.get(arch, lambda: lambda: None)()

    def end(self) -> None:
        """Give the processor back as it was."""
        self._restore()

    def _x86(self) -> Callable[[], None]:
        b = self._builder
        before, own = (b.bitcast(b.alloca(_WORD), POINTER) for _ in range(2))
        read, write = (self._intrinsic(f"llvm.x86.sse.{name}mxcsr", ir.VoidType(), POINTER) for name in ("st", "ld"))
        b.call(read, [before])
        b.store(b.or_(b.load(before, align=4, typ=_WORD), _WORD(_X86)), own, align=4)
        b.call(write, [own])
        return lambda: b.call(write, [before])

    def _arm(self) -> Callable[[], None]:
        b = self._builder
        before = b.call(self._intrinsic("llvm.aarch64.get.fpcr", _WIDE), [])
        write = self._intrinsic("llvm.aarch64.set.fpcr", ir.VoidType(), _WIDE)
        b.call(write, [b.or_(before, _WIDE(_ARM))])
        return lambda: b.call(write, [before])

    def _intrinsic(self, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
        return intrinsic(self._builder.module, name, result, arguments)
