"""Sine and cosine as straight-line IR.

Coefficients are minimax fits (Remez exchange in 60 digits), rounded to double.
"""

from __future__ import annotations

from llvmlite import ir

from tidegate.compile.llvm.exponential import clamp, polynomial
from tidegate.compile.llvm.lanes import Lanes

# π/2 as the nearest number of each type, what that leaves, and what is left again.
HALF_PI = {
    "float": (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    "double": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
}
# (sin √y/√y - 1)/y for √y ≤ π/4; relative error of the sine: 4.9e-12 and 3.5e-18.
SIN = {
    "float": (-0.16666666641428082, 0.008333329362285074, -0.00019839327119316997, 2.718237046845542e-06),
    "double": (
        -0.16666666666666632, 0.008333333333322316, -0.00019841269829725438,
        2.7557313662122315e-06, -2.505075327303652e-08, 1.5896505373298765e-10,
    ),
}  # fmt: skip
# (cos √y - 1 + y/2)/y² for √y ≤ π/4; error: 9.6e-11 and 4.7e-20.
COS = {
    "float": (0.04166664674730933, -0.0013887361447071133, 2.4437730465462626e-05),
    "double": (
        0.0416666666666666, -0.0013888888888873992, 2.4801587289395573e-05,
        -2.755731432618067e-07, 2.0875719575191816e-09, -1.135944937573465e-11,
    ),
}  # fmt: skip


def sin(v: Lanes, x: ir.Value) -> ir.Value:
    """Return sin x for x in radians; NaN at ±∞.

    Accurate for |x| ≤ 2¹⁶ (float) and 2³⁰ (double). Beyond, the remainder of x / (π/2) loses digits: the result
    stays within ±1 but means less and less.
    """
    result = _turned(v, x, 0.0)
    return v.select(v.equal(x, v.const(0.0)), x, result)


def cos(v: Lanes, x: ir.Value) -> ir.Value:
    """Return cos x for x in radians; accurate where `sin` is."""
    return _turned(v, x, 1.0)


def _turned(v: Lanes, x: ir.Value, quarters: float) -> ir.Value:
    """Return sin(x + quarters · π/2)."""
    n = v.round_even(v.mul(x, v.const(0.6366197723675814)))
    rest = x
    for part in HALF_PI[v.real]:
        rest = v.fma(n, v.const(-part), rest)
    rest = clamp(v, rest, -0.8, 0.8)
    turn = v.add(n, v.const(quarters))
    half = v.floor(v.mul(turn, v.const(0.5)))
    odd = v.not_equal(v.add(half, half), turn)
    minus = v.not_equal(v.mul(v.floor(v.mul(half, v.const(0.5))), v.const(2.0)), half)
    square = v.mul(rest, rest)
    sine = v.fma(v.mul(rest, square), polynomial(v, square, SIN[v.real]), rest)
    tail = v.mul(v.mul(square, square), polynomial(v, square, COS[v.real]))
    cosine = v.add(v.fma(square, v.const(-0.5), v.const(1.0)), tail)
    size = v.select(odd, cosine, sine)
    return v.select(minus, v.neg(size), size)
