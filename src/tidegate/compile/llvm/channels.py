"""Some channels of one row in registers: their loads, stores and arithmetic, real or complex, as IR."""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, LINE_BYTES, Lanes
from tidegate.compile.llvm.tile import after

Values = list[ir.Value]


@dataclass(frozen=True)
class Tile:
    """Some channels of one row: `width` vectors side by side, the last of them masked if need be.

    A complex number's imaginary part stands `apart` channels behind its real one; values are listed real parts
    first.
    """

    lanes: Lanes
    width: int
    mask: ir.Value | None
    apart: ir.Value | None
    streaming: bool

    def _places(self, pointer: ir.Value) -> Values:
        parts = [pointer] if self.apart is None else [pointer, after(self.lanes, pointer, self.apart)]
        return [after(self.lanes, part, INDEX(w * self.lanes.count)) for part in parts for w in range(self.width)]

    @property
    def fills_lines(self) -> bool:
        return self.width * self.lanes.count * self.lanes.bytes >= LINE_BYTES

    def load(self, pointer: ir.Value) -> Values:
        if self.mask is None:
            return [self.lanes.load(place) for place in self._places(pointer)]
        return [self.lanes.masked_load(place, self.mask) for place in self._places(pointer)]

    def store(self, values: Values, pointer: ir.Value, past_cache: bool = False) -> None:
        for value, place in zip(values, self._places(pointer), strict=True):
            if self.mask is not None:
                self.lanes.masked_store(value, place, self.mask)
            elif past_cache and self.streaming and self.fills_lines:
                self.lanes.store_past_cache(value, place)
            else:
                self.lanes.store(value, place)

    def zeros(self) -> Values:
        return [self.lanes.const(0.0)] * (self.width * (1 if self.apart is None else 2))

    def ones(self) -> Values:
        real = [self.lanes.const(1.0)] * self.width
        return real if self.apart is None else real + [self.lanes.const(0.0)] * self.width

    def plus(self, x: Values, y: Values) -> Values:
        return [self.lanes.add(*pair) for pair in zip(x, y, strict=True)]

    def fma(self, x: Values, y: Values, z: Values) -> Values:
        """x·y + z."""
        if self.apart is None:
            return [self.lanes.fma(*each) for each in zip(x, y, z, strict=True)]
        (xr, xi), (yr, yi), (zr, zi) = map(self._parts, (x, y, z))
        minus = [self.lanes.neg(v) for v in xi]
        return self._fma(minus, yi, self._fma(xr, yr, zr)) + self._fma(xi, yr, self._fma(xr, yi, zi))

    def times_conjugate(self, x: Values, y: Values) -> Values:
        """conj(x)·y."""
        if self.apart is None:
            return [self.lanes.builder.fmul(*pair) for pair in zip(x, y, strict=True)]
        (xr, xi), (yr, yi) = map(self._parts, (x, y))
        minus = [self.lanes.neg(v) for v in xi]
        return self._fma(xi, yi, self._times(xr, yr)) + self._fma(minus, yr, self._times(xr, yi))

    def _parts(self, x: Values) -> tuple[Values, Values]:
        return x[: self.width], x[self.width :]

    def _fma(self, x: Values, y: Values, z: Values) -> Values:
        return [self.lanes.fma(*each) for each in zip(x, y, z, strict=True)]

    def _times(self, x: Values, y: Values) -> Values:
        return [self.lanes.builder.fmul(*pair) for pair in zip(x, y, strict=True)]
