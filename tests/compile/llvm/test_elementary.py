"""Elementary functions in IR against NumPy's and the math module's in a wider type."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir

from tidegate.compile.llvm.elementary import FUNCTIONS
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes

REALS = ("float", "double")
WIDTH = {"float": 8, "double": 4}
TYPE = {"float": np.float32, "double": np.float64}
# The largest numbers whose results the type still holds as normal numbers.
EXP_RANGE = {"float": (-87.3, 88.7), "double": (-708.3, 709.7)}
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 1e-30, -1e-30, 1e30, -1e30)

Emitter = Callable[..., ir.Value]


def compiled(emit: Emitter, real: str, count: int, arity: int = 1) -> Callable[..., np.ndarray]:
    """`emit` over whole arrays, `count` numbers at a time."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * (arity + 1) + [INDEX]), "loop")
    *inputs, output, length = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    start, body, end = builder.block, function.append_basic_block(), function.append_basic_block()
    builder.branch(body)
    builder.position_at_end(body)
    index = builder.phi(INDEX)
    v = Lanes(builder, real, count)
    values = [v.load(builder.gep(pointer, [index], source_etype=v.scalar_type)) for pointer in inputs]
    v.store(emit(v, *values), builder.gep(output, [index], source_etype=v.scalar_type))
    following = builder.add(index, INDEX(count))
    index.add_incoming(INDEX(0), start)
    index.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, length), body, end)
    builder.position_at_end(end)
    builder.ret_void()
    engine = run_time(str(module))
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)(engine.get_function_address("loop"))

    def apply(*arrays: np.ndarray) -> np.ndarray:
        short = -len(arrays[0]) % count
        padded = [np.concatenate([a, np.ones(short)]).astype(TYPE[real]) for a in arrays]
        result = np.full(len(padded[0]), np.nan, TYPE[real])
        call(*[a.ctypes.data for a in padded], result.ctypes.data, len(result))
        assert engine
        return result[: len(arrays[0])]

    return apply


def run_time(text: str) -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


@cache
def native(name: str, real: str, count: int | None = None) -> Callable[..., np.ndarray]:
    return compiled(FUNCTIONS[name], real, count or WIDTH[real], 2 if name == "pow" else 1)


def wide(name: str, x: np.ndarray) -> np.ndarray:
    """The oracle, in a type with at least 11 more bits."""
    x = x.astype(np.longdouble)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "erf":
        return np.array([math.erf(number) for number in x], np.longdouble)
    return getattr(np, name)(x)


def errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """In units of the last place of the wanted result."""
    kind = np.finfo(got.dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(want), np.longdouble(kind.smallest_normal))))
    return np.abs(got.astype(np.longdouble) - want) / np.exp2(exponent - kind.nmant)


def grid(real: str, low: float, high: float, count: int = 40_001) -> np.ndarray:
    return np.linspace(low, high, count).astype(TYPE[real])


def sizes(real: str, least: float, most: float, count: int = 20_001) -> np.ndarray:
    positive = np.exp(np.linspace(math.log(least), math.log(most), count)).astype(TYPE[real])
    return np.concatenate([positive, -positive])


def inputs(name: str, real: str) -> np.ndarray:
    everywhere = sizes(real, 1e-37, 1e37)
    if name in ("exp", "expm1"):
        return np.concatenate([grid(real, *EXP_RANGE[real]), grid(real, -2, 2), sizes(real, 1e-37, 1)])
    if name == "sigmoid":
        return np.concatenate([grid(real, EXP_RANGE[real][0], 50), grid(real, -5, 5), everywhere[:20_001]])
    if name == "log":
        return np.concatenate([np.abs(everywhere), grid(real, 0.5, 2)])
    if name == "log1p":
        return np.concatenate([everywhere[everywhere > -1], grid(real, -0.999, 2)])
    if name in ("sin", "cos"):
        quarters = np.arange(-2000, 2000) * (math.pi / 2)
        return np.concatenate([grid(real, -7, 7), grid(real, -6e4, 6e4), quarters.astype(TYPE[real])])
    return np.concatenate([grid(real, -10, 10), everywhere])


# Where the last place of a result just below 1 is half of that above, tanh in float is out by 5 of the smaller.
BOUNDS = {
    "float": {"exp": 1.1, "expm1": 1.7, "log": 1, "log1p": 1, "sigmoid": 3, "tanh": 5.2, "sin": 2, "cos": 2,
              "erf": 2.5},
    "double": {"exp": 1.1, "expm1": 2.2, "log": 1, "log1p": 1, "sigmoid": 2.6, "tanh": 2.7, "sin": 2, "cos": 2,
              "erf": 2.5},
}  # fmt: skip


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", sorted(BOUNDS["float"]))
def test_results_are_right_to_the_last_places(name: str, real: str) -> None:
    x = inputs(name, real)
    found = errors(native(name, real)(x), wide(name, x))
    worst = int(found.argmax())
    assert found[worst] <= BOUNDS[real][name], f"{name}({x[worst]!r}) is out by {found[worst]:.2f} last places"


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", sorted(BOUNDS["float"]))
def test_edges_are_those_of_numpy(name: str, real: str) -> None:
    x = np.array(SPECIAL, TYPE[real])
    if name in ("sin", "cos"):
        x = x[~(np.abs(x) == TYPE[real](1e30))]
    with np.errstate(all="ignore"):
        want = wide(name, x).astype(TYPE[real])
    got = native(name, real)(x)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    zeros = want == 0
    assert (np.signbit(got[zeros]) == np.signbit(want[zeros])).all()


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_number_alone_and_one_among_others_are_bit_equal(name: str, real: str) -> None:
    x = np.concatenate([grid(real, -12, 12, 4001), sizes(real, 1e-30, 1e30, 501), np.array(SPECIAL)])
    arguments = (np.abs(x), x[::-1]) if name == "pow" else (x,)
    alone, among, twice = (native(name, real, count)(*arguments) for count in (1, 4, 8))
    same = (alone == among) & (alone == twice) | np.isnan(alone) & np.isnan(among) & np.isnan(twice)
    assert same.all()


@pytest.mark.parametrize("real", REALS)
def test_exp_passes_through_denormal_numbers_to_zero_and_up_to_infinity(real: str) -> None:
    low, high = EXP_RANGE[real]
    x = grid(real, low * 1.3, low, 5001)
    got, want = native("exp", real)(x), np.exp(x.astype(np.longdouble))
    assert errors(got, want).max() <= 1.1
    assert got[0] == 0
    assert native("exp", real)(grid(real, high + 0.1, high * 2, 50)).min() == math.inf


@pytest.mark.parametrize("real", REALS)
def test_squashers_stay_in_their_ranges(real: str) -> None:
    x = np.concatenate([grid(real, -100, 100), grid(real, 6, 10, 200_001), sizes(real, 1, 1e30)])
    tanh, sigmoid = native("tanh", real), native("sigmoid", real)
    assert np.abs(tanh(x)).max() == 1
    assert (tanh(-x) == -tanh(x)).all()
    assert sigmoid(x).min() >= 0
    assert sigmoid(x).max() == 1
    assert sigmoid(np.zeros(1))[0] == 0.5


@pytest.mark.parametrize("real", REALS)
def test_sine_of_huge_numbers_stays_within_one(real: str) -> None:
    x = sizes(real, 1e5, 1e37)
    assert np.abs(native("sin", real)(x)).max() <= 1
    assert np.abs(native("cos", real)(x)).max() <= 1


@pytest.mark.parametrize("real", REALS)
def test_powers_are_right_to_the_last_places(real: str) -> None:
    random = np.random.default_rng(0)
    x = np.exp(np.concatenate([random.uniform(-80, 80, 20_000), random.uniform(-0.4, 0.4, 20_000)])).astype(TYPE[real])
    y = np.concatenate([random.uniform(-8, 8, 20_000), random.uniform(-1500, 1500, 20_000)]).astype(TYPE[real])
    want = x.astype(np.longdouble) ** y
    kind = np.finfo(TYPE[real])
    held = (want > kind.smallest_normal) & (want < kind.max)
    assert errors(native("pow", real)(x, y)[held], want[held]).max() <= {"float": 0.51, "double": 2}[real]


@pytest.mark.parametrize("real", REALS)
def test_edges_of_powers_are_those_of_numpy(real: str) -> None:
    edges = np.array([*SPECIAL, 2, -2, 3, -3, 0.5, -0.5, -1.5], TYPE[real])
    x, y = (a.ravel() for a in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        want = np.power(x.astype(np.float64), y.astype(np.float64)).astype(TYPE[real])
    got = native("pow", real)(x, y)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    signed = ~np.isnan(want)
    assert (np.signbit(got) == np.signbit(want))[signed].all()


def test_sum_and_maximum_fold_halves() -> None:
    values = np.array([1e8, 1.0, -1e8, 1.0], np.float32)
    total = compiled(lambda v, x: v.splat(v.sum(x)), "float", 4)
    assert total(values).tolist() == [2.0] * 4
    most = compiled(lambda v, x: v.splat(v.maximum_of(x)), "float", 4)
    assert most(values).tolist() == [np.float32(1e8)] * 4
    assert np.isnan(most(np.array([1, np.nan, 2, 3]))).all()


@pytest.mark.parametrize("real", REALS)
def test_minimum_and_maximum_let_nan_through(real: str) -> None:
    a, b = (p.ravel() for p in np.meshgrid([1.0, -2.0, math.inf, math.nan], [3.0, -math.inf, math.nan, -2.0]))
    for name in ("minimum", "maximum"):
        got = compiled(lambda v, x, y, name=name: getattr(v, name)(x, y), real, 4, arity=2)(a, b)
        np.testing.assert_array_equal(got, getattr(np, name)(a, b))


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_masked_load_and_store_touch_only_the_first_lanes(real: str, count: int) -> None:
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, POINTER, INDEX]), "copy")
    v = Lanes(ir.IRBuilder(function.append_basic_block()), real, count)
    source, target, n = function.args
    mask = v.first(n)
    v.masked_store(v.add(v.masked_load(source, mask), v.const(1.0)), target, mask)
    v.builder.ret_void()
    engine = run_time(str(module))
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(engine.get_function_address("copy"))
    x = np.arange(count, dtype=TYPE[real])
    for n_first in (-3, 0, 1, count - 1, count, count + 1, 2**40):
        y = np.full(count, -7, TYPE[real])
        call(x.ctypes.data, y.ctypes.data, n_first)
        kept = min(max(n_first, 0), count)
        np.testing.assert_array_equal(y, np.where(np.arange(count) < kept, x + 1, -7))
