"""From IR to functions: right numbers, kept code, and refusals that say why."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tidegate.compile.llvm import engine, host
from tidegate.compile.llvm.cache import FOLDER
from tidegate.compile.llvm.engine import Compiled, compile_module, emit_assembly, emit_object, symbol, verify
from tidegate.errors import BackendError


def fused_rows(lanes: int, real: str = "float") -> str:
    """IR of `void fused(i64 n, real* x, real* y)`: y = x·x + y by a private helper, n vectors of `lanes`."""
    vector, size = f"<{lanes} x {real}>", 4 if real == "float" else 8
    fma = f"llvm.fma.v{lanes}f{8 * size}"
    return f"""; ModuleID = "fused rows"
declare {vector} @{fma}({vector}, {vector}, {vector})
define {vector} @square({vector} %a, {vector} %b) {{
  %kept = alloca {vector}, align {size}
  %r = call {vector} @{fma}({vector} %a, {vector} %a, {vector} %b)
  store {vector} %r, ptr %kept, align {size}
  %s = load {vector}, ptr %kept, align {size}
  ret {vector} %s
}}
define void @fused(i64 %n, ptr %x, ptr %y) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  %o = mul i64 %i, {lanes}
  %px = getelementptr {real}, ptr %x, i64 %o
  %py = getelementptr {real}, ptr %y, i64 %o
  %a = load {vector}, ptr %px, align {size}
  %b = load {vector}, ptr %py, align {size}
  %r = call {vector} @square({vector} %a, {vector} %b)
  store {vector} %r, ptr %py, align {size}
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}
"""


def call_fused(compiled: Compiled, vectors: int, x: np.ndarray, y: np.ndarray) -> None:
    signature = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    signature(compiled.addresses["fused"])(vectors, x.ctypes.data, y.ctypes.data)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk cache of this test's own, and nothing in memory."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    forget(monkeypatch)
    return tmp_path / "native"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_in_memory", {})


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("isa", host._able())
def test_every_instruction_set_of_this_machine_computes_with_one_rounding(folder: Path, isa: str, real: str) -> None:
    target = host.target(isa)
    dtype = np.float32 if real == "float" else np.float64
    tiny = dtype(2.0**-12 if real == "float" else 2.0**-27)
    x = np.full(3 * target.lanes(real), 1 + tiny, dtype)
    y = np.full_like(x, -1)
    compiled = compile_module(fused_rows(target.lanes(real), real), ["fused"], target)
    call_fused(compiled, 3, x, y)
    assert np.array_equal(y, np.full_like(x, 2 * tiny + tiny * tiny))  # two roundings would lose tiny²


def test_code_comes_from_the_compiler_then_memory_then_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = fused_rows(4)
    first = compile_module(text, ["fused"])
    assert first.source == "compiled"
    assert first.seconds > 0
    again = compile_module(text, ["fused"])
    assert (again.source, again.seconds, again.addresses) == ("memory", 0, first.addresses)

    forget(monkeypatch)
    monkeypatch.setattr(engine, "emit_object", None)  # kept code must not need the compiler
    kept = compile_module(text, ["fused"])
    assert (kept.source, kept.seconds) == ("disk", 0)
    x, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
    call_fused(kept, 1, x, y)
    assert y.tolist() == [1, 2, 5, 10]


def test_another_target_or_name_is_another_module(folder: Path) -> None:
    text = fused_rows(4)
    made = [
        compile_module(text, ["fused"]),
        compile_module(text, ["fused"], replace(host.host(), registers=7)),
        compile_module(text, ["square", "fused"]),
    ]
    assert [compiled.source for compiled in made] == ["compiled"] * 3
    assert list(made[2].addresses) == ["square", "fused"]


def test_a_damaged_entry_is_built_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module(fused_rows(4), ["fused"])
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-9] + b"\xcc" * 9)
    forget(monkeypatch)
    assert compile_module(fused_rows(4), ["fused"]).source == "compiled"
    assert kept.read_bytes() == whole
    forget(monkeypatch)
    assert compile_module(fused_rows(4), ["fused"]).source == "disk"


def test_without_a_disk_cache_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, "")
    forget(monkeypatch)
    assert compile_module(fused_rows(4), ["fused"]).source == "compiled"
    assert compile_module(fused_rows(4), ["fused"]).source == "memory"


PROCESS = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from test_engine import call_fused, fused_rows
from tidegate.compile.llvm.engine import compile_module
compiled = compile_module(fused_rows(4), ["fused"])
x, y = np.arange(4, dtype=np.float32), np.ones(4, np.float32)
call_fused(compiled, 1, x, y)
assert y.tolist() == [1, 2, 5, 10]
print(compiled.source)
"""


def start(folder: Path) -> subprocess.Popen:
    here = str(Path(__file__).parent)
    environment = {**os.environ, FOLDER: str(folder.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, here],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_compile_the_same_at_once_agree(folder: Path) -> None:
    for process in [start(folder) for _ in range(3)]:
        said, complaint = process.communicate(timeout=300)
        assert process.returncode == 0, complaint
        assert said.strip() in ("compiled", "disk")
    assert len(list(folder.iterdir())) == 1
    said, complaint = start(folder).communicate(timeout=300)
    assert said.strip() == "disk", complaint


def test_loading_kept_code_builds_no_ir(folder: Path) -> None:
    text = fused_rows(4)
    compile_module(text, ["fused"])
    program = "\n".join(
        (
            "import llvmlite.binding as llvm",
            "from tidegate.compile.llvm import engine",
            "llvm.parse_assembly = llvm.create_pass_builder = None",
            f"print(engine.compile_module({text!r}, ['fused']).source)",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, FOLDER: str(folder.parent)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split() == ["disk"], done.stderr


@pytest.mark.parametrize(
    ("isa", "real", "holds"),
    [
        ("avx512", "float", ["vfmadd", "zmm"]),
        ("avx512", "double", ["vfmadd", "zmm"]),
        ("avx2", "float", ["vfmadd", "ymm"]),
        ("neon", "float", ["fmla", ".4s"]),
        ("neon", "double", ["fmla", ".2d"]),
    ],
)
def test_vector_code_is_emitted_for_machines_that_are_elsewhere(isa: str, real: str, holds: list[str]) -> None:
    target = host.target(isa)
    assembly = emit_assembly(fused_rows(target.lanes(real), real), target)
    body = assembly.partition("fused:")[2]
    assert any(all(part in line for part in holds) for line in body.splitlines()), assembly


def test_the_optimiser_inlines_and_keeps_values_in_registers() -> None:
    target = host.target("avx2")
    body = emit_assembly(fused_rows(8), target).partition("\nfused:")[2]
    assert "call" not in body
    assert "rsp" not in body


def test_only_the_named_functions_stay_visible() -> None:
    target = host.target("neon")
    text = fused_rows(4)
    assert b"square" in emit_object(text, target)
    alone = emit_object(text, target, ["fused"])
    assert b"fused" in alone
    assert b"square" not in alone


def test_code_far_from_this_process_calls_what_was_registered(folder: Path) -> None:
    signature = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    half = signature(lambda value: value / 2)
    symbol("tidegate_test_half", ctypes.cast(half, ctypes.c_void_p).value or 0)
    text = """
declare double @tidegate_test_half(double)
define double @quarter(double %x) {
  %a = call double @tidegate_test_half(double %x)
  %b = call double @tidegate_test_half(double %a)
  ret double %b
}
"""
    assert signature(compile_module(text, ["quarter"]).addresses["quarter"])(10.0) == 2.5


def test_malformed_ir_is_refused_with_its_reason() -> None:
    text = '; ModuleID = "broken"\ndefine i32 @f() {\n  ret i32 %x\n}\n'
    with pytest.raises(BackendError) as refusal:
        verify(text, host.target("neon"))
    message = str(refusal.value)
    assert message.startswith("compiling the module 'broken' for neon; expected well formed LLVM IR; got")
    assert "use of undefined value '%x'" in message


def test_ir_that_parses_but_breaks_a_rule_is_refused() -> None:
    text = """; ModuleID = "loopless"
define i32 @f(i1 %c) {
  br i1 %c, label %a, label %b
a:
  %x = add i32 1, 2
  br label %b
b:
  ret i32 %x
}
"""
    with pytest.raises(BackendError, match=r"(?s)'loopless'.*does not dominate all uses"):
        compile_module(text, ["f"])


def test_a_function_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(
        BackendError, match="the module 'fused rows'; expected a function 'backward'; got only fused, sq"
    ):
        compile_module(fused_rows(4), ["fused", "backward"])


def test_a_call_of_nothing_is_refused_before_it_ends_the_process(folder: Path) -> None:
    text = "declare void @tidegate_nobody()\ndefine void @f() {\n  call void @tidegate_nobody()\n  ret void\n}\n"
    for _ in range(2):  # compiled, then kept
        with pytest.raises(BackendError, match="expected definitions of tidegate_nobody; got Failed"):
            compile_module(text, ["f"])
