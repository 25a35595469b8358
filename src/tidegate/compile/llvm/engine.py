"""From the text of LLVM's intermediate representation (IR) to functions in memory, compiled once per machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cache
from itertools import count
from time import perf_counter

import llvmlite
import llvmlite.binding as llvm

from tidegate.compile.llvm.cache import disk_cache
from tidegate.compile.llvm.host import Target, host
from tidegate.errors import BackendError
from tidegate.version import __version__

SPEED_LEVEL = 2
MAKERS = f"tidegate {__version__}, llvmlite {llvmlite.__version__}, LLVM {llvm.llvm_version_info}, O{SPEED_LEVEL}"
_DECLARED = re.compile(r'^declare [^@\n]*@"?([^"(\s]+)', re.MULTILINE)
_in_memory: dict[str, Compiled] = {}
_symbols: dict[str, int] = {}
_numbers = count()  # a library's name is never used twice


@dataclass(frozen=True)
class Compiled:
    """Functions in memory, where they stay while the process lives.

    `addresses` maps names to where they start; `seconds` is what optimising and emitting took, 0 where kept code
    was found; `source` is "compiled", "disk" or "memory".
    """

    addresses: dict[str, int]
    seconds: float
    source: str
    library: llvm.ResourceTracker = field(repr=False)


def compile_module(text: str, names: Sequence[str], target: Target | None = None) -> Compiled:
    """Return the functions `names` of a module in IR, from memory, from disk or compiled.

    `target`, by default this machine, must be one that this machine can run. Functions that are not named become
    private. Loads and stores must state their alignment.
    Raises `BackendError` where LLVM refuses the module, it lacks a name or calls what nobody defines.
    """
    target = target or host()
    digest = _digest(text, names, target)
    found = _in_memory.get(digest)
    if found:
        return Compiled(found.addresses, 0.0, "memory", found.library)
    disk = disk_cache()
    code = disk.load(digest) if disk else None
    source, seconds = "disk", 0.0
    if code is None:
        start = perf_counter()
        code = emit_object(text, target, names)
        source, seconds = "compiled", perf_counter() - start
        if disk:
            disk.store(digest, code)
    library = _load(code, names, text)
    addresses = {name: int(library[name]) for name in names}
    # Another thread may have been first: its addresses may be in use and must stay alive.
    return _in_memory.setdefault(digest, Compiled(addresses, seconds, source, library))


def share(text: str, names: Mapping[str, str], target: Target) -> dict[str, int]:
    """Compile a module, and let every module that declares its functions by their other names call them."""
    addresses = compile_module(text, list(names), target).addresses
    for name, address in addresses.items():
        symbol(names[name], address)
    return addresses


def emit_object(text: str, target: Target, names: Sequence[str] | None = None) -> bytes:
    """Return object code for `target`, which need not be this machine; only `names` stay visible, if given."""
    module, machine = _optimised(text, target, names)
    return bytes(machine.emit_object(module))


def emit_assembly(text: str, target: Target) -> str:
    """Return the optimised module as assembly for `target`, which need not be this machine."""
    module, machine = _optimised(text, target, None)
    return str(machine.emit_assembly(module))


def verify(text: str, target: Target) -> None:
    """Raise `BackendError` with LLVM's reason where the module is not well formed."""
    _parsed(text, target, target.machine())


def symbol(name: str, address: int) -> None:
    """Let modules that declare the function `name` call what lies at `address`."""
    _symbols[name] = address


def _digest(text: str, names: Sequence[str], target: Target) -> str:
    return hashlib.sha256("\n".join((MAKERS, repr(astuple(target)), *names, text)).encode()).hexdigest()


def _title(text: str) -> str:
    """The module's name, as llvmlite writes it in the first line."""
    named = re.match(r"; ModuleID = ['\"](.*)['\"]", text)
    return f"the module {named[1] if named else text[:40]!r}"


def _optimised(text: str, target: Target, names: Sequence[str] | None) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    """The optimised module and the machine that emits it. The IR is vectorised and unrolled already."""
    machine = target.machine()
    module = _parsed(text, target, machine)
    if names is not None:
        _hide_others(module, names, _title(text))
    options = llvm.create_pipeline_tuning_options(speed_level=SPEED_LEVEL)
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_interleaving = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return module, machine


def _parsed(text: str, target: Target, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
        module.triple, module.data_layout = target.triple, str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise BackendError(
            f"compiling {_title(text)} for {target.isa}", expected="well formed LLVM IR", got=str(error).strip()
        ) from None
    return module


def _hide_others(module: llvm.ModuleRef, names: Sequence[str], title: str) -> None:
    """Give every defined function that is not asked for to the optimiser, which may inline and drop it."""
    defined = {function.name: function for function in module.functions if not function.is_declaration}
    for name in names:
        if name not in defined:
            raise BackendError(
                f"compiling {title}", expected=f"a function {name!r}", got=f"only {', '.join(sorted(defined))}"
            )
    for name in defined.keys() - set(names):
        defined[name].linkage = "internal"


def _load(code: bytes, names: Sequence[str], text: str) -> llvm.ResourceTracker:
    library = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
    for name, address in list(_symbols.items()):  # another thread may add to them
        library.import_symbol(name, address)
    for name in names:
        library.export_symbol(name)
    try:
        return library.link(_linker(), f"tidegate{next(_numbers)}")
    except RuntimeError as error:
        outside = [name for name in _DECLARED.findall(text) if not name.startswith("llvm.")]
        raise BackendError(
            f"loading {_title(text)}",
            expected=f"definitions of {', '.join(outside) or 'what it calls'}",
            got=str(error).strip(),
        ) from None


@cache
def _linker() -> llvm.LLJIT:
    # JITLink puts code and constants side by side, which small relative addresses need; it does not serve Windows.
    return llvm.create_lljit_compiler(host().machine(), use_jit_link=os.name == "posix", suppress_errors=True)
