"""The error function as straight-line IR.

Coefficients are minimax fits (Remez exchange in 60 digits), rounded to double.
"""

from __future__ import annotations

from llvmlite import ir

from tidegate.compile.llvm.exponential import exp_of_small, polynomial
from tidegate.compile.llvm.lanes import Lanes

# erf √y / √y for y ≤ 1; relative error 1.2e-9 and 7.3e-18.
NEAR = {
    "float": (
        1.1283791657268292, -0.3761262582368373, 0.11283585142055534, -0.026853811673379135,
        0.005188327210657882, -0.0008010189599338953, 7.85384839886155e-05,
    ),
    "double": (
        1.1283791670955126, -0.3761263890318352, 0.11283791670944185, -0.02686617064311147, 0.005223977606118481,
        -0.0008548325929316656, 0.0001205529357702147, -1.4924712305189893e-05, 1.6447131617748237e-06,
        -1.6206314146064028e-07, 1.3710982127039678e-08, -7.779471692267398e-10,
    ),
}  # fmt: skip
# -ln erfc x - x² = P(x)/Q(x) for 1 ≤ x ≤ 3.95 (float) or 5.95 (double); error of erf: 1.0e-9 and 3.5e-17.
FAR_NUMERATOR = {
    "float": (
        0.0003537716754406177, 1.1270398129811556, -0.36177393475796077, 0.10303701767601481,
        -0.021805144282319448, 0.0029395625295690953, -0.00018556934318600428,
    ),
    "double": (
        4.889040831018501e-07, 1.1283747739444883, 1.3488323561975368, 0.6234748841810291,
        0.14561372383682125, 0.009298643374114398, 2.712543027240413e-05,
    ),
}  # fmt: skip
FAR_DENOMINATOR = {
    "float": (1.0,),
    "double": (
        1.0, 1.5173926113628935, 0.9501596186232462, 0.3137061399846489, 0.04873449903974069, 0.0019290733555602849,
    ),
}  # fmt: skip
ONE_FROM = {"float": 3.95, "double": 5.95}


def erf(v: Lanes, x: ir.Value) -> ir.Value:
    """Return erf x = 2/√π ∫₀ˣ e^(-t²) dt: x times a polynomial up to |x| = 1, 1 - erfc |x| beyond."""
    size = v.minimum(v.const(ONE_FROM[v.real]), v.abs(x))
    square = v.mul(size, size)
    near = v.mul(size, polynomial(v, square, NEAR[v.real]))
    rest = polynomial(v, size, FAR_NUMERATOR[v.real])
    if len(FAR_DENOMINATOR[v.real]) > 1:
        rest = v.div(rest, polynomial(v, size, FAR_DENOMINATOR[v.real]))
    far = v.sub(v.const(1.0), exp_of_small(v, v.neg(v.fma(size, size, rest))))
    return v.copysign(v.select(v.less(v.const(1.0), size), far, near), x)
