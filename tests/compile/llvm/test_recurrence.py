"""The passes over time as IR: well formed for every target, and each against its definition on raw memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from tidegate.compile.llvm.engine import emit_object, verify
from tidegate.compile.llvm.host import host, target
from tidegate.compile.llvm.recurrence import FIELDS, PASSES, Kind, compiled, module_text
from tidegate.compile.llvm.threads import run

DTYPES = {"float": np.float32, "double": np.float64}


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("is_complex", [False, True])
def test_every_pass_is_well_formed(name: str, is_complex: bool) -> None:
    for real in DTYPES:
        for streaming in (False, True):
            verify(module_text(Kind(real, host().lanes(real), is_complex, streaming, host().triple), name), host())


@pytest.mark.parametrize("isa", ["avx512", "avx2", "neon", "generic"])
def test_code_is_emitted_for_every_target(isa: str) -> None:
    made = target(isa)
    for name in ("forward", "backward"):
        assert (
            len(
                emit_object(
                    module_text(Kind("float", made.lanes("float"), False, False, made.triple), name), made, [name]
                )
            )
            > 500
        )


def call(name: str, real: str, streaming: bool = False, **values: int | np.ndarray) -> None:
    """Run a pass; arrays are [rows, steps, channels], or [rows, channels] where no step is."""
    code, counter = compiled(name, real, False, streaming), ctypes.c_int64(0)
    block = (ctypes.c_int64 * len(FIELDS))()
    fields: dict[str, int] = {"next": ctypes.addressof(counter), "block": code.block, "stretch": 5}
    for key, value in values.items():
        if isinstance(value, int):
            fields[key] = value
            continue
        fields[key] = value.ctypes.data
        for part, stride in zip(("row", "step"), value.strides[:-1], strict=False):
            fields[f"{key}_{part}"] = stride // value.itemsize
    for key, number in fields.items():
        if key in FIELDS:
            block[FIELDS.index(key)] = number
    run(code.address, ctypes.addressof(block), 1)


@pytest.mark.parametrize("real", DTYPES)
@pytest.mark.parametrize("channels", [1, 17, 64, 100])
def test_states_land_inside_their_rows_and_nowhere_else(real: str, channels: int) -> None:
    random = np.random.default_rng(1)
    a, b = (random.normal(size=(3, 13, channels)).astype(DTYPES[real]) for _ in range(2))
    around = np.full((3, 13, channels + 7), np.nan, DTYPES[real])
    h, state = around[:, :, 3 : 3 + channels], random.normal(size=(3, channels)).astype(DTYPES[real])
    expected, before = np.empty_like(b), state.copy()
    for t in range(13):
        before = expected[:, t] = a[:, t] * before + b[:, t]
    sizes = {"rows": 3, "steps": 13, "channels": channels, "chunks": 1, "chunk_steps": 13}
    call("forward", real, a=a, b=b, h=h, state=state, **sizes)
    tolerance = 1e-5 if real == "float" else 1e-13
    np.testing.assert_allclose(h, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(state, h[:, -1])
    assert np.isnan(around[:, :, :3]).all()
    assert np.isnan(around[:, :, 3 + channels :]).all()


def test_results_past_the_cache_are_the_same_bits() -> None:
    random = np.random.default_rng(2)
    a, b = (random.normal(size=(2, 40, 192)).astype(np.float32) for _ in range(2))
    sizes = {"rows": 2, "steps": 40, "channels": 192, "chunks": 1, "chunk_steps": 40}
    found = []
    for streaming in (False, True):
        memory = np.full(2 * 40 * 192 + 16, np.nan, np.float32)
        start = -memory.ctypes.data // 4 % 16
        h = memory[start : start + 2 * 40 * 192].reshape(2, 40, 192)
        call("forward", "float", streaming, a=a, b=b, h=h, state=np.ones((2, 192), np.float32), **sizes)
        found.append(h.copy())
    np.testing.assert_array_equal(found[0], found[1])


def test_chunks_compose_to_the_whole() -> None:
    random = np.random.default_rng(3)
    a, b = (random.normal(size=(2, 23, 5)) for _ in range(2))
    start = random.normal(size=(2, 5))
    factor, local = np.ones((2, 3, 5)), np.zeros((2, 3, 5))
    sizes = {"rows": 2, "steps": 23, "channels": 5, "chunks": 3, "chunk_steps": 8}
    call("forward_chunk", "double", a=a, b=b, factor=factor, state=local, **sizes)
    composed = start
    for chunk in range(3):
        composed = factor[:, chunk] * composed + local[:, chunk]
    for t in range(23):
        start = a[:, t] * start + b[:, t]
    np.testing.assert_allclose(composed, start, rtol=1e-12)
