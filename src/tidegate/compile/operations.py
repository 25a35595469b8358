"""What torch's operations do to rows: the table of all that compile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

from tidegate.compile.graph import Graph
from tidegate.compile.rows import Matrix, Row, UnsupportedError, Value, as_row, each, multiply, reduce

Rows: TypeAlias = "list[Row | None]"
Operation = TypeVar("Operation", bound=Callable[..., Any])

OPERATIONS: dict[str, Callable[..., Row | Rows]] = {}
"""By the name of torch's operator, without namespace and overload."""


def operation(*names: str) -> Callable[[Operation], Operation]:
    """Enter a function of the graph and the operator's arguments under `names`."""

    def enter(function: Operation) -> Operation:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


def _elementwise(op: str, g: Graph, *values: Value) -> Row:
    return each(g, op, *values)


for _name in ("mul", "div", "neg", "exp", "expm1", "log", "log1p", "tanh", "sigmoid", "sin", "cos", "erf", "sqrt",
              "abs", "maximum", "minimum"):  # fmt: skip
    OPERATIONS[_name] = partial(_elementwise, _name)
for _name, _op in {"le": "less_equal", "lt": "less", "eq": "equal", "ne": "not_equal", "logical_and": "and",
                   "bitwise_and": "and", "logical_or": "or", "bitwise_or": "or", "logical_not": "not",
                   "bitwise_not": "not", "where": "where"}.items():  # fmt: skip
    OPERATIONS[_name] = partial(_elementwise, _op)


@operation("add")
def _add(g: Graph, a: Value, b: Value, *, alpha: float = 1) -> Row:
    return each(g, "add", a, b if alpha == 1 else each(g, "mul", b, alpha))


@operation("sub")
def _sub(g: Graph, a: Value, b: Value, *, alpha: float = 1) -> Row:
    return each(g, "sub", a, b if alpha == 1 else each(g, "mul", b, alpha))


@operation("rsub")
def _rsub(g: Graph, a: Value, b: Value, alpha: float = 1) -> Row:
    return _sub(g, b, a, alpha=alpha)


@operation("gt")
def _gt(g: Graph, a: Value, b: Value) -> Row:
    return each(g, "less", b, a)


@operation("ge")
def _ge(g: Graph, a: Value, b: Value) -> Row:
    return each(g, "less_equal", b, a)


@operation("square")
def _square(g: Graph, x: Row) -> Row:
    return each(g, "mul", x, x)


@operation("reciprocal")
def _reciprocal(g: Graph, x: Row) -> Row:
    return each(g, "div", 1.0, x)


@operation("rsqrt")
def _rsqrt(g: Graph, x: Row) -> Row:
    return each(g, "div", 1.0, each(g, "sqrt", x))


@operation("pow")
def _pow(g: Graph, x: Value, exponent: Value) -> Row:
    if not isinstance(exponent, int | float):
        raise UnsupportedError("an exponent that is a tensor; torch.exp(y * torch.log(x))")
    if exponent == 0.5:
        return each(g, "sqrt", x)
    if exponent != int(exponent) or not 1 <= abs(exponent) <= 8:
        raise UnsupportedError(f"the exponent {exponent}; torch.exp({exponent} * torch.log(x))")
    power = base = as_row(g, x)
    for _ in range(abs(int(exponent)) - 1):
        power = each(g, "mul", power, base)
    return power if exponent > 0 else each(g, "div", 1.0, power)


@operation("lerp")
def _lerp(g: Graph, start: Value, end: Value, weight: Value) -> Row:
    return each(g, "add", start, each(g, "mul", weight, each(g, "sub", end, start)))


@operation("addcmul")
def _addcmul(g: Graph, x: Value, a: Value, b: Value, *, value: float = 1) -> Row:
    return _add(g, x, each(g, "mul", a, b), alpha=value)


@operation("addcdiv")
def _addcdiv(g: Graph, x: Value, a: Value, b: Value, *, value: float = 1) -> Row:
    return _add(g, x, each(g, "div", a, b), alpha=value)


@operation("relu")
def _relu(g: Graph, x: Row) -> Row:
    return each(g, "where", each(g, "less_equal", x, 0.0), 0.0, x)


@operation("leaky_relu")
def _leaky_relu(g: Graph, x: Row, slope: float = 0.01) -> Row:
    return each(g, "where", each(g, "less", 0.0, x), x, each(g, "mul", x, slope))


@operation("elu")
def _elu(g: Graph, x: Row, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Row:
    # Bounded where it is not chosen, so that infinity times no gradient is no NaN.
    scaled = _clamp(g, each(g, "mul", x, input_scale), None, 0.0)
    low = each(g, "mul", each(g, "expm1", scaled), alpha * scale)
    return each(g, "where", each(g, "less", 0.0, x), each(g, "mul", x, scale), low)


@operation("silu")
def _silu(g: Graph, x: Row) -> Row:
    return each(g, "mul", x, each(g, "sigmoid", x))


@operation("gelu")
def _gelu(g: Graph, x: Row, *, approximate: str = "none") -> Row:
    if approximate == "tanh":
        cubic = each(g, "add", x, each(g, "mul", _pow(g, x, 3), 0.044715))
        curve = each(g, "tanh", each(g, "mul", cubic, math.sqrt(2 / math.pi)))
    else:
        curve = each(g, "erf", each(g, "mul", x, math.sqrt(0.5)))
    return each(g, "mul", each(g, "mul", x, 0.5), each(g, "add", curve, 1.0))


@operation("softplus")
def _softplus(g: Graph, x: Row, beta: float = 1, threshold: float = 20) -> Row:
    scaled = each(g, "mul", x, beta)
    bent = each(g, "mul", each(g, "log1p", each(g, "exp", _clamp(g, scaled, None, threshold))), 1 / beta)
    return each(g, "where", each(g, "less", threshold, scaled), x, bent)


@operation("mish")
def _mish(g: Graph, x: Row) -> Row:
    return each(g, "mul", x, each(g, "tanh", _softplus(g, x)))


@operation("log_sigmoid_forward", "log_sigmoid")
def _log_sigmoid(g: Graph, x: Row) -> Rows:
    low = each(g, "minimum", x, 0.0)
    return [each(g, "sub", low, each(g, "log1p", each(g, "exp", each(g, "neg", each(g, "abs", x))))), None]


@operation("clamp")
def _clamp(g: Graph, x: Row, low: Value | None = None, high: Value | None = None) -> Row:
    inside = as_row(g, x)
    if low is not None:
        inside = each(g, "where", each(g, "less", x, low), low, inside)
    if high is not None:
        inside = each(g, "where", each(g, "less", high, x), high, inside)
    return inside


@operation("clamp_min")
def _clamp_min(g: Graph, x: Row, low: Value) -> Row:
    return _clamp(g, x, low)


@operation("clamp_max")
def _clamp_max(g: Graph, x: Row, high: Value) -> Row:
    return _clamp(g, x, None, high)


@operation("hardtanh")
def _hardtanh(g: Graph, x: Row, low: float = -1.0, high: float = 1.0) -> Row:
    """Clamp, with the gradient 0 at the corners, as torch has it, where `clamp`'s is 1."""
    held = each(g, "stop", _clamp(g, x, low, high))
    return each(g, "where", each(g, "less", low, x), each(g, "where", each(g, "less", x, high), x, held), held)


@operation("hardsigmoid")
def _hardsigmoid(g: Graph, x: Row) -> Row:
    return _hardtanh(g, each(g, "mul", each(g, "add", x, 3.0), 1 / 6), 0.0, 1.0)


@operation("sign")
def _sign(g: Graph, x: Row) -> Row:
    positive = each(g, "where", each(g, "less", 0.0, x), 1.0, each(g, "mul", x, 0.0))
    return each(g, "stop", each(g, "where", each(g, "less", x, 0.0), -1.0, positive))


@operation("detach", "detach_")
def _detach(g: Graph, x: Row) -> Row:
    return each(g, "stop", x)


@operation("clone", "alias", "contiguous", "_to_copy", "to", "expand", "lift_fresh")
def _same(g: Graph, x: Row, *_: Any, **__: Any) -> Row:  # noqa: ARG001
    return x


@operation("zeros_like", "ones_like", "full_like")
def _filled(*_: Any, **__: Any) -> Row:
    raise UnsupportedError("a tensor made anew; write the number itself, as in 1.0 - x")


@operation("mm")
def _mm(g: Graph, v: Row, matrix: Any) -> Row:
    if not isinstance(v, Row) or not isinstance(matrix, Matrix):
        raise UnsupportedError("a product of two tensors that both change with the step; only v @ weights")
    return multiply(g, v, matrix)


@operation("addmm")
def _addmm(g: Graph, bias: Row, v: Row, matrix: Any, *, beta: float = 1, alpha: float = 1) -> Row:
    product = _mm(g, v, matrix)
    return _add(g, product if alpha == 1 else each(g, "mul", product, alpha), bias, alpha=beta)


@operation("linear")
def _linear(g: Graph, v: Row, matrix: Any, bias: Row | None = None) -> Row:
    if not isinstance(matrix, Matrix):
        raise UnsupportedError("weights that change with the step")
    rows, columns = matrix.shape
    turned = Matrix(matrix.factor._replace(turned=not matrix.factor.turned), (columns, rows))
    product = _mm(g, v, turned)
    return product if bias is None else each(g, "add", product, bias)


def _last_axis(x: Row, dim: Any, keepdim: bool) -> bool:
    """Return whether a reduction leaves a flat tensor, or raise unless it is over the last axis."""
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    if x.flat or dims not in ([-1], [1]):
        raise UnsupportedError("a reduction that is not over the last axis alone; rows may not meet")
    return not keepdim


@operation("sum")
def _sum(g: Graph, x: Row, dim: Any = None, keepdim: bool = False, **_: Any) -> Row:
    return Row((reduce(g, "sum", x),), _last_axis(x, dim, keepdim))


@operation("mean")
def _mean(g: Graph, x: Row, dim: Any = None, keepdim: bool = False, **_: Any) -> Row:
    return Row((g.mul(reduce(g, "sum", x), g.share(x.width)),), _last_axis(x, dim, keepdim))


@operation("amax")
def _amax(g: Graph, x: Row, dim: Any = None, keepdim: bool = False) -> Row:
    return Row((reduce(g, "max", x),), _last_axis(x, dim, keepdim))


@operation("amin")
def _amin(g: Graph, x: Row, dim: Any = None, keepdim: bool = False) -> Row:
    return Row((g.apply("neg", reduce(g, "max", each(g, "neg", x))),), _last_axis(x, dim, keepdim))


@operation("linalg_vector_norm")
def _norm(g: Graph, x: Row, order: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Row:
    if order != 2:
        raise UnsupportedError(f"the norm of order {order}")
    return each(g, "sqrt", _sum(g, each(g, "mul", x, x), dim, keepdim))


@operation("logsumexp")
def _logsumexp(g: Graph, x: Row, dim: Any, keepdim: bool = False) -> Row:
    largest = each(g, "stop", _amax(g, x, dim, True))
    largest = each(g, "where", each(g, "less", each(g, "abs", largest), math.inf), largest, 0.0)
    total = _sum(g, each(g, "exp", each(g, "sub", x, largest)), dim, True)
    return Row(each(g, "add", each(g, "log", total), largest).pieces, not keepdim)


@operation("_softmax")
def _softmax(g: Graph, x: Row, dim: int, _: bool) -> Row:
    powers = each(g, "exp", each(g, "sub", x, each(g, "stop", _amax(g, x, dim, True))))
    return each(g, "div", powers, _sum(g, powers, dim, True))


@operation("_log_softmax")
def _log_softmax(g: Graph, x: Row, dim: int, _: bool) -> Row:
    below = each(g, "sub", x, each(g, "stop", _amax(g, x, dim, True)))
    return each(g, "sub", below, each(g, "log", _sum(g, each(g, "exp", below), dim, True)))


@operation("native_layer_norm")
def _layer_norm(g: Graph, x: Row, shape: Sequence[int], gain: Row | None, bias: Row | None, eps: float) -> Rows:
    if list(shape) != [x.width]:
        raise UnsupportedError(f"a norm over {list(shape)} of rows {x.width} wide")
    return [_scaled(g, _standardised(g, x, _centre(g, x), eps), gain, bias), None, None]


@operation("_fused_rms_norm", "rms_norm")
def _rms_norm(g: Graph, x: Row, shape: Sequence[int], gain: Row | None = None, eps: float | None = None) -> Rows:
    if list(shape) != [x.width] or eps is None:
        raise UnsupportedError(f"a norm over {list(shape)} of rows {x.width} wide, eps={eps}; give eps")
    squares = g.mul(reduce(g, "sum", each(g, "mul", x, x)), g.share(x.width))
    root = g.apply("sqrt", g.add(squares, g.const(eps)))
    return [_scaled(g, each(g, "div", x, Row((root,))), gain, None), None]


def _centre(g: Graph, x: Row) -> Row:
    return Row((g.mul(reduce(g, "sum", each(g, "stop", x)), g.share(x.width)),))


def _standardised(g: Graph, x: Row, mean: Row, eps: float) -> Row:
    """Return `(x − mean)/√(variance + eps)`; the statistics come from `stop`: the adjoint knows them."""
    centred = each(g, "sub", each(g, "stop", x), mean)
    variance = g.mul(reduce(g, "sum", each(g, "mul", centred, centred)), g.share(x.width))
    inverse = g.div(g.const(1.0), g.apply("sqrt", g.add(variance, g.const(eps))))
    if len(x.pieces) > 1:
        raise UnsupportedError("a norm over pieces put together with cat; normalise the product")
    return Row((g.node("standardised", x.width, (*x.pieces, *mean.pieces, inverse), (x.width,)),))


def _scaled(g: Graph, x: Row, gain: Row | None, bias: Row | None) -> Row:
    x = x if gain is None else each(g, "mul", x, gain)
    return x if bias is None else each(g, "add", x, bias)


@operation("cat")
def _cat(_: Graph, rows: Sequence[Any], dim: int = 0) -> Row:
    if dim not in (-1, 1) or not all(isinstance(row, Row) for row in rows):
        raise UnsupportedError("cat over an axis other than the last")
    return Row(tuple(piece for row in rows for piece in row.pieces))


@operation("slice")
def _slice(g: Graph, x: Row, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Row:
    if dim == 0 and not start and (end is None or end > 1 << 40):
        return x
    if dim not in (-1, 1) or step != 1:
        raise UnsupportedError("a slice that is not of consecutive units")
    first, last, _ = slice(start, end).indices(x.width)
    return _cut(g, x, first, last - first)


def _cut(g: Graph, x: Row, offset: int, width: int) -> Row:
    cuts = sorted({offset, offset + width, *(c for c in x.cuts if offset < c < offset + width)})
    return Row(tuple(x.window(g, a, b - a) for a, b in pairwise(cuts)))


@operation("split", "split_with_sizes")
def _split(g: Graph, x: Row, size: int | Sequence[int], dim: int = 0) -> Rows:
    if dim not in (-1, 1):
        raise UnsupportedError("a split of the batch; rows may not meet")
    sizes = [min(size, x.width - at) for at in range(0, x.width, size)] if isinstance(size, int) else list(size)
    return [_cut(g, x, sum(sizes[:number]), width) for number, width in enumerate(sizes)]


@operation("select")
def _select(g: Graph, x: Row, dim: int, index: int) -> Row:
    if dim not in (-1, 1):
        raise UnsupportedError("one row of the batch; rows may not meet")
    return Row(_cut(g, x, index % x.width, 1).pieces, flat=True)


@operation("unsqueeze")
def _unsqueeze(_: Graph, x: Row, dim: int) -> Row:
    if not x.flat or dim not in (-1, 1):
        raise UnsupportedError("an axis beside [B, width]")
    return Row(x.pieces)


@operation("squeeze")
def _squeeze(_: Graph, x: Row, dim: Any = None) -> Row:
    return Row(x.pieces, flat=True) if x.width == 1 and dim in (-1, 1, [-1], [1]) else x


@operation("view", "_unsafe_view", "reshape")
def _view(_: Graph, x: Row, shape: Sequence[int]) -> Row:
    if len(shape) != 2 or shape[1] not in (-1, x.width):
        raise UnsupportedError(f"a change of shape to {list(shape)}")
    return Row(x.pieces)
