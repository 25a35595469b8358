"""Exponentials and their inverses as straight-line IR: exp, expm1, tanh, sigmoid, log, log1p.

Coefficients are minimax fits (Remez exchange in 60 digits), rounded to double.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from llvmlite import ir

from tidegate.compile.llvm.lanes import Lanes

LOG2_E = 1.4426950408889634
# ln 2 as the nearest number of each type, and what that leaves.
LN_2 = {"float": (0.693147182464599609375, -1.9046542e-09), "double": (0.6931471805599453, 2.3190468138462996e-17)}
MANTISSA_BITS = {"float": 23, "double": 52}
EXPONENT_BIAS = {"float": 127, "double": 1023}

# (eˣ - 1 - x)/x² for |x| ≤ ln 2 / 2; relative error of eˣ - 1: 1.6e-8 and 2.1e-17.
EXPM1 = {
    "float": (
        0.5000000062227618, 0.16666542545350446, 0.04166628066515724, 0.008366643988870784, 0.0013946554724091358,
    ),
    "double": (
        0.5000000000000006, 0.16666666666666685, 0.041666666666572955, 0.00833333333331441, 0.0013888888932614386,
        0.00019841269903448305, 2.480150414637147e-05, 2.7557227559611793e-06, 2.7626451321097116e-07,
        2.511460376896563e-08,
    ),
}  # fmt: skip
# c e⁻ˣ for |x| ≤ ln 2 / 2, c the first coefficient; relative error 9.2e-8. The common factor c, chosen by trial,
# makes the rounding of the coefficients to float nearly harmless.
SCALED_EXP = (
    1.4086989164352417, -1.408698558807373, 0.7043373584747314,
    -0.23479680716991425, 0.059022191911935806, -0.011678497307002544,
)  # fmt: skip
# tanh √y / √y = P(y)/Q(y) for √y ≤ 8, common factor chosen likewise; relative error 6.4e-9 before rounding.
TANH_NUMERATOR = (
    1.5678842067718506, 0.2107941210269928, 0.00559984752908349, 3.43282226822339e-05, 2.3879424659867254e-08,
)  # fmt: skip
TANH_DENOMINATOR = (
    1.5678842067718506, 0.7334221005439758, 0.04102279990911484, 0.0005348503473214805, 1.3362167692321236e-06,
)  # fmt: skip
# The least float at which the quotient above, as it rounds, is 1; below it no quotient is larger.
TANH_ONE_FROM = 7.921194553375244
# (2 artanh(s)/s - 2)/s² in s², for s = (m - 1)/(m + 1) and √½ ≤ m ≤ √2; relative error of artanh: 4.8e-12 and 1.3e-18.
ARTANH = {
    "float": (0.6666666563722975, 0.4000033722383415, 0.28537169565996723, 0.2358496016413628),
    "double": (
        0.6666666666666735, 0.3999999999940751, 0.28571428744138333, 0.2222219837871606,
        0.1818357515506464, 0.15313755994238096, 0.14799064001687692,
    ),
}  # fmt: skip


def polynomial(v: Lanes, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """Return Σ coefficients[k] xᵏ by Horner's rule."""
    total = v.const(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = v.fma(total, x, v.const(coefficient))
    return total


def clamp(v: Lanes, x: ir.Value, low: float, high: float) -> ir.Value:
    return v.minimum(v.const(high), v.maximum(v.const(low), x))


def exp(v: Lanes, x: ir.Value) -> ir.Value:
    """Return eˣ: ∞ above the largest number, denormal numbers and then 0 below the least."""
    return exp_of_pair(v, x, None)


def exp_of_pair(v: Lanes, x: ir.Value, low: ir.Value | None) -> ir.Value:
    """Return e^(x + low), for a `low` of at most some roundings of x."""
    x = clamp(v, x, *((-104.0, 89.0) if v.real == "float" else (-746.0, 710.0)))
    exponent, rest = _whole_and_rest(v, x, 2 * EXPONENT_BIAS[v.real])
    rest = rest if low is None else v.add(rest, low)
    # 2ⁿ itself may be no normal number, but each of two halves is.
    half = v.builder.lshr(exponent, v.bits(1))
    powers = [_power(v, part) for part in (half, v.builder.sub(exponent, half))]
    return v.mul(v.mul(v.add(_expm1_of_rest(v, rest), v.const(1.0)), powers[0]), powers[1])


def exp_of_small(v: Lanes, x: ir.Value) -> ir.Value:
    """Return eˣ where neither the result nor its power of two leaves the normal numbers."""
    exponent, rest = _whole_and_rest(v, x, EXPONENT_BIAS[v.real])
    power = _power(v, exponent)
    return v.fma(power, _expm1_of_rest(v, rest), power)


def expm1(v: Lanes, x: ir.Value) -> ir.Value:
    """Return eˣ - 1 without cancellation near 0; ∞ above the largest number."""
    near = clamp(v, x, *((-20.0, 89.0) if v.real == "float" else (-40.0, 710.0)))
    # Halved, the power of two is finite wherever the result is.
    exponent, rest = _whole_and_rest(v, near, EXPONENT_BIAS[v.real] - 1)
    power = _power(v, exponent)
    half = v.fma(power, _expm1_of_rest(v, rest), v.sub(power, v.const(0.5)))
    return v.copysign(v.add(half, half), x)


def sigmoid(v: Lanes, x: ir.Value) -> ir.Value:
    """Return 1/(1 + e⁻ˣ), accurate relative to itself; 0 where that is no normal number."""
    lowest, highest = (-89.0, 88.0) if v.real == "float" else (-710.0, 709.0)
    x = clamp(v, x, lowest, highest)
    exponent, rest = _whole_and_rest(v, x, EXPONENT_BIAS[v.real], sign=-1.0)
    power = _power(v, exponent)
    # At the lowest x the power is infinite, and the result 0.
    if v.real == "float":
        scale = v.const(SCALED_EXP[0])
        return v.div(scale, v.fma(polynomial(v, rest, SCALED_EXP), power, scale))
    one = v.const(1.0)
    return v.div(one, v.fma(v.add(_expm1_of_rest(v, v.neg(rest)), one), power, one))


def tanh(v: Lanes, x: ir.Value) -> ir.Value:
    """Return tanh x, accurate relative to itself, odd, and never beyond ±1.

    In float a quotient of polynomials, whose error is at most 3.1e-7 of the result; in double through eˣ - 1.
    """
    if v.real == "double":
        return _tanh_by_expm1(v, x)
    x = clamp(v, x, -TANH_ONE_FROM, TANH_ONE_FROM)
    square = v.mul(x, x)
    return v.div(v.mul(x, polynomial(v, square, TANH_NUMERATOR)), polynomial(v, square, TANH_DENOMINATOR))


def _tanh_by_expm1(v: Lanes, x: ir.Value) -> ir.Value:
    size = v.minimum(v.const(20.0), v.abs(x))
    exponent, rest = _whole_and_rest(v, v.add(size, size), EXPONENT_BIAS[v.real])
    power = _power(v, exponent)
    grown = v.fma(power, _expm1_of_rest(v, rest), v.sub(power, v.const(1.0)))
    return v.copysign(v.div(grown, v.add(grown, v.const(2.0))), x)


def log(v: Lanes, x: ir.Value) -> ir.Value:
    """Return ln x; -∞ at 0, NaN below."""
    normal, exponent = normalised(v, x)
    return _checked_log(v, x, _log_of_normal(v, normal, exponent, v.const(0.0)))


def log1p(v: Lanes, x: ir.Value) -> ir.Value:
    """Return ln(1 + x) without cancellation near 0; -∞ at -1, NaN below."""
    one = v.const(1.0)
    whole = v.add(x, one)
    lost = v.sub(v.minimum(one, x), v.sub(whole, v.maximum(one, x)))
    result = _log_of_normal(v, whole, v.const(0.0), v.div(lost, whole))
    return v.copysign(_checked_log(v, whole, result), x)


def _checked_log(v: Lanes, x: ir.Value, result: ir.Value) -> ir.Value:
    infinity = float("inf")
    result = v.select(v.equal(x, v.const(infinity)), x, result)
    outside = v.select(v.equal(x, v.const(0.0)), v.const(-infinity), v.const(float("nan")))
    return v.select(v.greater(x, v.const(0.0)), result, outside)


def _log_of_normal(v: Lanes, x: ir.Value, exponent: ir.Value, extra: ir.Value) -> ir.Value:
    """Return ln x + exponent · ln 2 + extra, for a normal x > 0 and a small `extra`.

    With x = 2ᵏ m, √½ ≤ m < √2, f = m - 1 and s = f/(2 + f): ln m = f - (f²/2 - s (f²/2 + R(s²))), where
    2 artanh s = 2s + s R(s²).
    Source: the arrangement of FDLIBM's log (Sun Microsystems, 1993).
    """
    k, fraction = split(v, x)
    k = v.add(k, exponent)
    f = v.sub(fraction, v.const(1.0))
    s = v.div(f, v.add(f, v.const(2.0)))
    square = v.mul(s, s)
    series = v.mul(square, polynomial(v, square, ARTANH[v.real]))
    half_square = v.mul(v.mul(f, v.const(0.5)), f)
    high, low = LN_2[v.real]
    small = v.fma(s, v.add(half_square, series), v.fma(k, v.const(low), extra))
    return v.fma(k, v.const(high), v.sub(f, v.sub(half_square, small)))


def normalised(v: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return a normal number and the exponent e with x = number · 2ᵉ, for x > 0."""
    shift = MANTISSA_BITS[v.real] + 1
    denormal = v.less(x, v.const(2.0 ** (1 - EXPONENT_BIAS[v.real])))
    number = v.select(denormal, v.mul(x, v.const(2.0**shift)), x)
    return number, v.select(denormal, v.const(-float(shift)), v.const(0.0))


def split(v: Lanes, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return k, as a number, and m with x = 2ᵏ m and √½ ≤ m < √2."""
    bits, builder, width = MANTISSA_BITS[v.real], v.builder, 8 * v.bytes
    root_half = _bits_of(v, 0.5**0.5)
    # The offset keeps the exponent positive: 64-bit arithmetic shifts and conversions are slow in AVX2.
    moved = builder.add(v.to_bits(x), v.bits(2 ** (width - 1) - root_half))
    offset = float(2**bits)
    k = v.from_bits(builder.or_(builder.lshr(moved, v.bits(bits)), v.bits(_bits_of(v, offset))))
    fraction = builder.add(builder.and_(moved, v.bits(2**bits - 1)), v.bits(root_half))
    return v.sub(k, v.const(offset + 2 ** (width - 1 - bits))), v.from_bits(fraction)


def _bits_of(v: Lanes, number: float) -> int:
    real, integer = ("<f", "<I") if v.real == "float" else ("<d", "<Q")
    return int(struct.unpack(integer, struct.pack(real, number))[0])


def _whole_and_rest(v: Lanes, x: ir.Value, bias: int, sign: float = 1.0) -> tuple[ir.Value, ir.Value]:
    """Return an integer whose low bits are n + bias ≥ 0, and x - sign · n ln 2, with n = round(sign · x / ln 2).

    Added to 1½ · 2^mantissa, x / ln 2 is rounded to n, which then stands in the low bits.
    """
    magic = v.const(1.5 * 2.0 ** MANTISSA_BITS[v.real] + bias)
    shifted = v.fma(x, v.const(sign * LOG2_E), magic)
    n = v.sub(shifted, magic)
    rest = x
    for part in LN_2[v.real]:
        rest = v.fma(n, v.const(-sign * part), rest)
    return v.to_bits(shifted), rest


def _power(v: Lanes, exponent: ir.Value) -> ir.Value:
    """Return 2^(exponent - bias) from the low bits of `exponent`; 0 for 0, ∞ for 2·bias + 1."""
    return v.from_bits(v.builder.shl(exponent, v.bits(MANTISSA_BITS[v.real])))


def _expm1_of_rest(v: Lanes, rest: ir.Value) -> ir.Value:
    """Return eˣ - 1 for |x| ≤ ln 2 / 2."""
    return v.fma(v.mul(rest, rest), polynomial(v, rest, EXPM1[v.real]), rest)
