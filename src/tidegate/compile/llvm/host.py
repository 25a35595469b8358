"""The machine that code is made for: its instruction set, vector width and registers."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass, field, replace
from functools import cache

import llvmlite.binding as llvm

from tidegate.errors import ConfigError

FORCE = "TIDEGATE_ISA"
_REAL_BYTES = {"float": 4, "double": 8}
# Of Linux on x86-64: the system call, what is asked of it, and for which state of the processor.
_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA = 158, 0x1023, 18


@dataclass(frozen=True)
class Target:
    """What code is made for.

    `isa` is "amx" (AVX-512 and a matrix unit), "avx512", "avx2", "neon" or "generic"; `triple`, `cpu` and `features`
    are LLVM's; a vector register holds `vector_bytes` and there are `registers` of them. Where `fused` is false,
    `llvm.fma` becomes a slow call.
    """

    isa: str
    triple: str
    cpu: str
    features: str = field(repr=False)
    vector_bytes: int
    registers: int
    fused: bool

    def lanes(self, real: str) -> int:
        """Return how many numbers of type `real` ("float" or "double") one vector register holds."""
        return self.vector_bytes // _REAL_BYTES[real]

    def machine(self) -> llvm.TargetMachine:
        """Return a new LLVM target machine that emits code for this target, to lie anywhere in memory."""
        _initialise(_arch(self.triple) == _arch(_triple()))
        found, model = llvm.Target.from_triple(self.triple), "small" if os.name == "posix" else "large"
        return found.create_target_machine(self.cpu, self.features, opt=2, reloc="pic", codemodel=model, jit=True)


# The plainest machine of each instruction set, best first.
_PLAIN = {
    plain.isa: plain
    for plain in (
        Target("amx", "x86_64-unknown-linux-gnu", "x86-64-v4", "+amx-tile,+amx-bf16,-prefer-256-bit", 64, 32, True),
        # Some machines are tuned for half registers, which splits whole ones.
        Target("avx512", "x86_64-unknown-linux-gnu", "x86-64-v4", "-prefer-256-bit", 64, 32, True),
        Target("avx2", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 32, 16, True),
        Target("neon", "aarch64-unknown-linux-gnu", "generic", "+neon", 16, 32, True),
        Target("generic", "", "", "", 16, 16, False),
    )
}
_AVX512 = ("avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma")
_NEEDS = {
    "amx": ("amx-tile", "amx-bf16", *_AVX512),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma"),
    "neon": (),  # every 64-bit ARM has it
    "generic": (),
}


def host() -> Target:
    """Return this machine, or the lesser one that the environment variable TIDEGATE_ISA forces.

    Raises `ConfigError` where TIDEGATE_ISA names no instruction set, or one this machine cannot run.
    """
    return _host(os.environ.get(FORCE, ""))


def target(isa: str) -> Target:
    """Return the plainest machine that has the instruction set `isa`: to emit code for, not always to run it."""
    if isa not in _PLAIN:
        raise ConfigError("making code for an instruction set", expected=f"one of {', '.join(_PLAIN)}", got=f"{isa!r}")
    plain, here = _PLAIN[isa], _triple()
    return replace(plain, triple=here) if _arch(plain.triple) in ("", _arch(here)) else plain


@cache
def _host(forced: str) -> Target:
    able = _able(forced)
    if forced:
        if forced not in able:
            raise ConfigError(
                f"choosing the instruction set that {FORCE} names",
                expected=f"one this machine can run: {', '.join(able)}",
                got=f"{forced!r}",
                hint=f"unset {FORCE}",
            )
        return target(forced)
    best = target(able[0])
    if best.isa == "generic":
        return best
    features = [llvm.get_host_cpu_features().flatten(), best.features]
    return replace(best, cpu=str(llvm.get_host_cpu_name()), features=",".join(filter(None, features)))


def _able(forced: str = "") -> list[str]:
    """The instruction sets this machine can run, best first; "generic" is always the last.

    The matrix unit is asked for only where it may be used: a process that has it cannot give it back.
    """
    arch, features = _arch(_triple()), llvm.get_host_cpu_features()
    return [
        isa
        for isa, plain in _PLAIN.items()
        if _arch(plain.triple) in ("", arch)
        and all(features.get(need, False) for need in _NEEDS[isa])
        and (isa != "amx" or (forced in ("", "amx") and _grants_tiles()))
    ]


@cache
def _grants_tiles() -> bool:
    """Ask Linux to let this process use the matrix unit's tiles, and return whether it does."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA) == 0


def _arch(triple: str) -> str:
    arch = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)


def _triple() -> str:
    # LLVM's older loader, the one for Windows, is at home with ELF objects.
    return str(llvm.get_process_triple()) + ("-elf" if os.name == "nt" else "")


@cache
def _initialise(native: bool) -> None:
    if native:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    else:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
