"""Arithmetic on one vector of numbers, written as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

POINTER = ir.PointerType()
INDEX = ir.IntType(64)
LINE_BYTES = 64
# Sums and products may fuse into one rounding; nothing else is loosened.
FUSED = ("contract",)
SUFFIX = {"float": "f32", "double": "f64"}


class Lanes:
    """Emit arithmetic on vectors of `count` numbers of type `real` at the builder's position.

    With `count` 1 a vector is a scalar. All methods take and return `ir.Value`s of the vector's `type`, its
    `bits_type` (integers of the same width) or its `mask_type` (one bit a lane). Pointers are opaque and need
    only the alignment of one number. Sums, differences and products carry the `contract` flag.
    """

    def __init__(self, builder: ir.IRBuilder, real: str, count: int) -> None:
        self.builder = builder
        self.real = real
        self.count = count
        self.bytes = 4 if real == "float" else 8
        self.scalar_type = ir.FloatType() if real == "float" else ir.DoubleType()
        self.integer_type = ir.IntType(8 * self.bytes)
        self.type = self._vector(self.scalar_type)
        self.bits_type = self._vector(self.integer_type)
        self.mask_type = self._vector(ir.IntType(1))

    def const(self, number: float) -> ir.Value:
        """Return `number`, rounded to `real`, in every lane."""
        return self._filled(self.type, number)

    def bits(self, number: int) -> ir.Value:
        """Return the integer `number` in every lane."""
        return self._filled(self.bits_type, number)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """Return a scalar value in every lane."""
        if self.count == 1:
            return scalar
        vector = ir.VectorType(scalar.type, self.count)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, INDEX(0))
        return self._shuffle(first, [0] * self.count)

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b, flags=FUSED)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b, flags=FUSED)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b, flags=FUSED)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fdiv(a, b)

    def neg(self, a: ir.Value) -> ir.Value:
        return self.builder.fneg(a)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a·b + c with one rounding."""
        return self._call("fma", a, b, c)

    def abs(self, a: ir.Value) -> ir.Value:
        return self._call("fabs", a)

    def sqrt(self, a: ir.Value) -> ir.Value:
        return self._call("sqrt", a)

    def floor(self, a: ir.Value) -> ir.Value:
        return self._call("floor", a)

    def round_even(self, a: ir.Value) -> ir.Value:
        """Return the nearest whole number, the even one of two equally near."""
        return self._call("roundeven", a)

    def copysign(self, size: ir.Value, sign: ir.Value) -> ir.Value:
        return self._call("copysign", size, sign)

    def minimum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the smaller number; NaN when either is NaN. Of two equal numbers, `b`.

        A constant `a` makes it one instruction on x86.
        """
        return self.select(self.is_nan(a), a, self.select(self.less(a, b), a, b))

    def maximum(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return the larger number; NaN when either is NaN. Of two equal numbers, `b`."""
        return self.select(self.is_nan(a), a, self.select(self.greater(a, b), a, b))

    def less(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered("<", a, b)

    def less_equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered("<=", a, b)

    def greater(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered(">", a, b)

    def greater_equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered(">=", a, b)

    def equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fcmp_ordered("==", a, b)

    def not_equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return where a ≠ b; true where either is NaN."""
        return self.builder.fcmp_unordered("!=", a, b)

    def is_nan(self, a: ir.Value) -> ir.Value:
        return self.builder.fcmp_unordered("uno", a, a)

    def logical_and(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.and_(a, b)

    def logical_or(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.or_(a, b)

    def logical_not(self, a: ir.Value) -> ir.Value:
        return self.builder.not_(a)

    def select(self, mask: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """Return `a` where `mask` holds, `b` elsewhere."""
        return self.builder.select(mask, a, b)

    def to_bits(self, a: ir.Value) -> ir.Value:
        return self.builder.bitcast(a, self.bits_type)

    def from_bits(self, a: ir.Value) -> ir.Value:
        return self.builder.bitcast(a, self.type)

    def load(self, pointer: ir.Value) -> ir.Value:
        return self.builder.load(pointer, align=self.bytes, typ=self.type)

    def store(self, value: ir.Value, pointer: ir.Value) -> None:
        self.builder.store(value, pointer, align=self.bytes)

    @property
    def fills_line(self) -> bool:
        """Whether a vector is as large as a line of memory."""
        return self.count * self.bytes == LINE_BYTES

    def store_past_cache(self, value: ir.Value, pointer: ir.Value) -> None:
        """Store at a multiple of the vector's size what is not read soon. Others see it after a fence."""
        stored = self.builder.store(value, pointer, align=self.count * self.bytes)
        stored.set_metadata("nontemporal", self.builder.module.add_metadata([ir.IntType(32)(1)]))

    def prefetch(self, pointer: ir.Value, *, write: bool) -> None:
        """Have the line of memory at `pointer` in the first cache soon. Any address will do."""
        i32 = ir.IntType(32)
        called = self._intrinsic("llvm.prefetch.p0", ir.VoidType(), [POINTER, i32, i32, i32])
        self.builder.call(called, [pointer, i32(int(write)), i32(3), i32(1)])

    def masked_load(self, pointer: ir.Value, mask: ir.Value) -> ir.Value:
        """Return the numbers where `mask` holds and 0 elsewhere; memory outside the mask is not touched."""
        wide = self._wide(self.scalar_type)
        name = f"llvm.masked.load.v{self.count}{SUFFIX[self.real]}.p0"
        called = self._intrinsic(name, wide, [POINTER, ir.IntType(32), self._wide(ir.IntType(1)), wide])
        zeros = ir.Constant(wide, [0.0] * self.count)
        got = self.builder.call(called, [pointer, ir.IntType(32)(self.bytes), self._widen(mask), zeros])
        return got if self.count > 1 else self.builder.extract_element(got, INDEX(0))

    def masked_store(self, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
        """Store the numbers where `mask` holds; memory outside the mask is not touched."""
        types = [self._wide(self.scalar_type), POINTER, ir.IntType(32), self._wide(ir.IntType(1))]
        name = f"llvm.masked.store.v{self.count}{SUFFIX[self.real]}.p0"
        called = self._intrinsic(name, ir.VoidType(), types)
        self.builder.call(called, [self._widen(value), pointer, ir.IntType(32)(self.bytes), self._widen(mask)])

    def first(self, n: ir.Value) -> ir.Value:
        """Return the mask of the lanes whose index is below the i64 `n`, of any size and sign."""
        low = self.builder.select(self.builder.icmp_signed("<", n, INDEX(0)), INDEX(0), n)
        low = self.builder.select(self.builder.icmp_signed("<", low, INDEX(self.count)), low, INDEX(self.count))
        if self.real == "float":
            low = self.builder.trunc(low, self.integer_type)
        index = list(range(self.count)) if self.count > 1 else 0
        return self.builder.icmp_signed("<", ir.Constant(self.bits_type, index), self.splat(low))

    def sum(self, value: ir.Value) -> ir.Value:
        """Return the scalar sum of the lanes, in a fixed order.

        The upper half is added to the lower half, lane by lane, until one lane is left:
        of 4 lanes (v₀+v₂)+(v₁+v₃). The sums are not fused with what produced `value`.
        """
        return self._folded(value, self.builder.fadd)

    def maximum_of(self, value: ir.Value) -> ir.Value:
        """Return the scalar maximum of the lanes, NaN when one is NaN, in the order of `sum`."""
        return self._folded(value, self.maximum)

    def _folded(self, value: ir.Value, join: Callable[[ir.Value, ir.Value], ir.Value]) -> ir.Value:
        if self.count == 1:
            return value
        width = self.count
        while width > 1:
            width //= 2
            low, high = (self._shuffle(value, list(range(at, at + width))) for at in (0, width))
            value = join(low, high)
        return self.builder.extract_element(value, INDEX(0))

    def _vector(self, scalar: ir.Type) -> ir.Type:
        return scalar if self.count == 1 else ir.VectorType(scalar, self.count)

    def _wide(self, scalar: ir.Type) -> ir.Type:
        return ir.VectorType(scalar, self.count)

    def _widen(self, value: ir.Value) -> ir.Value:
        """Masked intrinsics want a vector, of one lane too."""
        return self.builder.bitcast(value, self._wide(value.type)) if self.count == 1 else value

    def _filled(self, type: ir.Type, number: float) -> ir.Value:
        return ir.Constant(type, number if self.count == 1 else [number] * self.count)

    def _shuffle(self, value: ir.Value, order: list[int]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order)
        return self.builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)

    def _call(self, operation: str, *values: ir.Value) -> ir.Value:
        suffix = SUFFIX[self.real] if self.count == 1 else f"v{self.count}{SUFFIX[self.real]}"
        name = f"llvm.{operation}.{suffix}"
        return self.builder.call(self._intrinsic(name, self.type, [self.type] * len(values)), values)

    def _intrinsic(self, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        return intrinsic(self.builder.module, name, result, arguments)


def intrinsic(module: ir.Module, name: str, result: ir.Type, arguments: Sequence[ir.Type]) -> ir.Function:
    """Return a function that LLVM knows by itself, declared once in a module."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)
