"""The machine that code is made for."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tidegate.compile.llvm.host import FORCE, host, target
from tidegate.errors import ConfigError


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FORCE, raising=False)


@pytest.mark.parametrize(
    ("isa", "floats", "doubles", "registers", "fused"),
    [
        ("amx", 16, 8, 32, True),
        ("avx512", 16, 8, 32, True),
        ("avx2", 8, 4, 16, True),
        ("neon", 4, 2, 32, True),
        ("generic", 4, 2, 16, False),
    ],
)
def test_an_instruction_set_has_its_registers(isa: str, floats: int, doubles: int, registers: int, fused: bool) -> None:
    made = target(isa)
    assert (made.isa, made.lanes("float"), made.lanes("double")) == (isa, floats, doubles)
    assert (made.registers, made.fused) == (registers, fused)


def test_targets_of_another_architecture_name_it() -> None:
    assert target("neon").triple.startswith(("aarch64", "arm64"))
    assert target("avx512").triple.startswith("x86_64")


def test_the_host_is_what_the_kernel_says_it_is() -> None:
    described = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not described.exists():
        pytest.skip("only Linux on x86-64 lists its features this way")
    flags = set(described.read_text().split())
    expected = "generic"
    if {"avx2", "fma"} <= flags:
        expected = "avx2"
    if {"avx2", "fma", "avx512f", "avx512vl", "avx512dq", "avx512bw"} <= flags:
        expected = "avx512"
        # Linux may keep the matrix unit from a process though the machine has it.
        if {"amx_tile", "amx_bf16"} <= flags and host().isa == "amx":
            expected = "amx"
    assert host().isa == expected


def test_generic_code_can_be_forced_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE, "generic")
    assert host() == target("generic")
    assert host().triple


@pytest.mark.parametrize("isa", ["amx", "avx512", "avx2", "neon"])
def test_a_forced_instruction_set_is_taken_or_refused(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["amx", "avx512", "avx2"] if platform.machine() in ("x86_64", "AMD64") else ["neon"]
    best = host().isa
    able = order[order.index(best) :] if best in order else []
    monkeypatch.setenv(FORCE, isa)
    if isa in able:
        assert host() == target(isa)
    else:
        with pytest.raises(ConfigError, match=rf"{FORCE} names; expected one this machine can run: .*generic; got"):
            host()


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FORCE, "sse")
    with pytest.raises(ConfigError, match=rf"got 'sse'; try: unset {FORCE}"):
        host()
    with pytest.raises(ConfigError, match="expected one of amx, avx512, avx2, neon, generic; got 'sse'"):
        target("sse")
