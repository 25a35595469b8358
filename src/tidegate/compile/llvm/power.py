"""Powers as straight-line IR."""

from __future__ import annotations

from llvmlite import ir

from tidegate.compile.llvm.exponential import LN_2, exp_of_pair, normalised, polynomial, split
from tidegate.compile.llvm.lanes import Lanes

TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
# (2 artanh(s)/s - 2 - 2/3 s²)/s⁴ in s², for |s| ≤ 0.1718; relative error of artanh: 1.1e-20.
ARTANH_REST = (
    0.40000000000002284,
    0.2857142857008457,
    0.2222222252275073,
    0.18181784107897214,
    0.15386769765039757,
    0.13256517707841858,
    0.13199203472569002,
)


def power(v: Lanes, x: ir.Value, y: ir.Value) -> ir.Value:
    """Return xʸ = e^(y ln |x|), with the sign of x where y is odd.

    NaN where x < 0 and y is no whole number; 1 where y is 0 or x is 1, whatever the other; 0 and ∞ as in C.
    Floats are computed in double. In double, ln |x| and its product with y are sums of two numbers.
    """
    if v.real == "float":
        wide = Lanes(v.builder, "double", v.count)
        result = power(wide, *(v.builder.fpext(a, wide.type) for a in (x, y)))
        return v.builder.fptrunc(result, v.type)
    zero, one, infinity = v.const(0.0), v.const(1.0), v.const(float("inf"))
    size = v.abs(x)
    high, low = _log_pair(v, size)
    product = v.mul(y, high)
    lost = v.fma(y, low, v.fma(y, high, v.neg(product)))
    result = exp_of_pair(v, product, v.select(v.less(v.abs(product), v.const(1e3)), lost, zero))
    result = v.select(v.equal(size, one), one, result)
    grows = v.logical_or(
        v.logical_and(v.equal(size, zero), v.less(y, zero)), v.logical_and(v.equal(size, infinity), v.greater(y, zero))
    )
    edge = v.logical_or(v.equal(size, zero), v.equal(size, infinity))
    result = v.select(edge, v.select(grows, infinity, zero), result)
    result = _signed(v, result, x, y)
    result = v.select(v.logical_or(v.is_nan(x), v.is_nan(y)), v.add(x, y), result)
    return v.select(v.logical_or(v.equal(y, zero), v.equal(x, one)), one, result)


def _signed(v: Lanes, size: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    half = v.mul(y, v.const(0.5))
    whole = v.equal(v.floor(y), y)
    odd = v.logical_and(whole, v.not_equal(v.floor(half), half))
    fractional = v.logical_and(v.logical_not(whole), v.less(x, v.const(0.0)))
    # An infinite base has a power of every exponent.
    fractional = v.logical_and(fractional, v.not_equal(x, v.const(-float("inf"))))
    signed = v.select(odd, v.copysign(size, x), size)
    return v.select(fractional, v.const(float("nan")), signed)


def _log_pair(v: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return ln x as a sum of two numbers, for finite x > 0: k ln 2 + 2s + 2/3 s³ + s⁵ R(s²), with s as in `log`.

    All but the last term are sums of two numbers.
    """
    normal, exponent = normalised(v, x)
    k, fraction = split(v, normal)
    k = v.add(k, exponent)
    s, s_low = _quotient_pair(v, v.sub(fraction, v.const(1.0)))
    square, square_low = _product_pair(v, s, s)
    cube, cube_low = _product_pair(v, square, s)
    third, third_low = _product_pair(v, cube, v.const(TWO_THIRDS[0]))
    rest = v.mul(v.mul(cube, square), polynomial(v, square, ARTANH_REST))
    # d(2 artanh s) = 2 ds / (1 - s²)
    rest = v.add(rest, v.mul(v.fma(square, s_low, s_low), v.const(2.0)))
    cube_low = v.fma(square_low, s, cube_low)
    rest = v.add(rest, v.fma(cube_low, v.const(TWO_THIRDS[0]), v.fma(cube, v.const(TWO_THIRDS[1]), third_low)))
    log_2, log_2_low = LN_2[v.real]
    base, base_low = _product_pair(v, k, v.const(log_2))
    rest = v.add(rest, v.fma(k, v.const(log_2_low), base_low))
    total, lost = _exact_sum(v, base, v.add(s, s))
    total, lost_again = _exact_sum(v, total, third)
    return _exact_sum(v, total, v.add(rest, v.add(lost, lost_again)))


def _quotient_pair(v: Lanes, f: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return f/(2 + f) as a sum of two numbers."""
    denominator, lost = _exact_sum(v, v.const(2.0), f)
    s = v.div(f, denominator)
    return s, v.div(v.fma(v.neg(s), lost, v.fma(v.neg(s), denominator, f)), denominator)


def _product_pair(v: Lanes, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    product = v.mul(a, b)
    return product, v.fma(a, b, v.neg(product))


def _exact_sum(v: Lanes, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return a + b and what its rounding lost, for |a| ≥ |b| or a = 0.

    Not by `add`, which may fuse with a product: what the sum lost must be what it lost.
    """
    total = v.builder.fadd(a, b)
    return total, v.builder.fsub(b, v.builder.fsub(total, a))
