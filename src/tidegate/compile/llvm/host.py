"""The machine that code is made for: its instruction set, vector width and registers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache

import llvmlite.binding as llvm

from tidegate.errors import ConfigError

FORCE = "TIDEGATE_ISA"
_REAL_BYTES = {"float": 4, "double": 8}


@dataclass(frozen=True)
class _Isa:
    """An instruction set: the architecture it belongs to and what must be there to run it."""

    arch: str
    needs: tuple[str, ...]
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fused: bool


# Best first. `cpu` and `features` are what every machine with the instruction set has.
_ISAS = {
    "avx512": _Isa(
        "x86_64",
        ("avx512f", "avx512vl", "avx512dq", "avx512bw", "avx2", "fma"),
        "x86-64-v4",
        "-prefer-256-bit",
        64,
        32,
        True,
    ),
    "avx2": _Isa("x86_64", ("avx2", "fma"), "x86-64-v3", "", 32, 16, True),
    "neon": _Isa("aarch64", (), "generic", "+neon", 16, 32, True),
    "generic": _Isa("", (), "", "", 16, 16, False),
}


@dataclass(frozen=True)
class Target:
    """What code is made for.

    `isa` is "avx512", "avx2", "neon" or "generic"; `triple`, `cpu` and `features` are LLVM's; a vector register
    holds `vector_bytes` and there are `registers` of them. Where `fused` is false `llvm.fma` becomes a call.
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
        """Return a new LLVM target machine that emits code for this target.

        Code addresses its constants relative to itself, so it may lie anywhere in memory.
        """
        _initialise()
        found = llvm.Target.from_triple(self.triple)
        return found.create_target_machine(self.cpu, self.features, opt=2, reloc="pic", codemodel="small", jit=True)


def host() -> Target:
    """Return this machine, or the lesser one that the environment variable TIDEGATE_ISA forces.

    Raises `ConfigError` where TIDEGATE_ISA names no instruction set, or one this machine cannot run.
    """
    return _host(os.environ.get(FORCE, ""))


def target(isa: str) -> Target:
    """Return the plainest machine that has the instruction set `isa`: to emit code for, not always to run it."""
    needed = _known(isa, "making code for an instruction set")
    here = _triple()
    if needed.arch and needed.arch != _arch(here):
        here = f"{needed.arch}-unknown-linux-gnu"
    return _plain(isa, here)


@cache
def _host(forced: str) -> Target:
    able = _able()
    if not forced:
        best, triple = able[0], _triple()
        plain = _plain(best, triple)
        if best == "generic":
            return plain
        features = ",".join(part for part in (llvm.get_host_cpu_features().flatten(), _ISAS[best].features) if part)
        return Target(best, triple, _cpu_name(), features, plain.vector_bytes, plain.registers, plain.fused)
    _known(forced, f"choosing the instruction set that {FORCE} names")
    if forced not in able:
        raise ConfigError(
            f"choosing the instruction set that {FORCE} names",
            expected=f"one that this machine can run: {', '.join(able)}",
            got=f"{forced!r}",
            hint=f"unset {FORCE}",
        )
    return _plain(forced, _triple())


def _known(isa: str, doing: str) -> _Isa:
    if isa not in _ISAS:
        raise ConfigError(doing, expected=f"one of {', '.join(_ISAS)}", got=f"{isa!r}", hint=f"{FORCE}=avx2")
    return _ISAS[isa]


def _able() -> list[str]:
    """The instruction sets this machine can run, best first; "generic" is always the last."""
    arch, features = _arch(_triple()), llvm.get_host_cpu_features()
    return [
        name
        for name, isa in _ISAS.items()
        if isa.arch in ("", arch) and all(features.get(feature, False) for feature in isa.needs)
    ]


def _plain(isa: str, triple: str) -> Target:
    found = _ISAS[isa]
    return Target(isa, triple, found.cpu, found.features, found.vector_bytes, found.registers, found.fused)


def _cpu_name() -> str:
    return str(llvm.get_host_cpu_name())


def _arch(triple: str) -> str:
    arch = triple.partition("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)


def _triple() -> str:
    # LLVM's loader reads ELF objects alone on Windows.
    return str(llvm.get_process_triple()) + ("-elf" if os.name == "nt" else "")


@cache
def _initialise() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
