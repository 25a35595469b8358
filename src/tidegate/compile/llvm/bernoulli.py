"""A number at a rate, else 0, by a counter, as IR: whichever thread writes a number, it is the same.

Bits are those of SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 18),
64 for every two numbers.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.frame import Frame, taking
from tidegate.compile.llvm.host import Target
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.texts import written
from tidegate.compile.llvm.tile import after, steps

ENTRY = "draw_ones"

SLOTS = ("taken", "pieces", "count", "seed", "limit", "value", "result")
"""What stands in the argument of `draw_ones`, in order."""

PIECE = 8192
"""So many numbers a thread draws at a time."""

_LANES = 16
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


@cache
def compiled(target: Target) -> int:
    """Return the address of `void draw_ones(argument)`, to be called by every thread with what `SLOTS` names.

    It writes `count` numbers of float32, of which there are so many `pieces`: with a probability of `limit` in 2³² the
    number whose bits are `value`, else 0. `taken` is a counter, which begins at 0.
    """
    text = written(f"ones for {target.isa}", lambda: str(_module(target)))
    return compile_module(text, (ENTRY,), target).addresses[ENTRY]


def _module(target: Target) -> ir.Module:
    module = ir.Module("ones")
    module.triple = target.triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), ENTRY)
    frame = Frame(function, [(slot,) for slot in SLOTS])
    b = ir.IRBuilder(function.append_basic_block("start"))
    lanes, wide = Lanes(b, "float", _LANES), Lanes(b, "double", _LANES // 2)
    limit = lanes.splat(b.trunc(frame.index("limit"), lanes.integer_type))
    value = lanes.from_bits(lanes.splat(b.trunc(frame.index("value"), lanes.integer_type)))
    order = ir.Constant(wide.bits_type, list(range(1, wide.count + 1)))
    with taking(b, frame, frame.index("pieces")) as item:
        begin = b.mul(item, INDEX(PIECE))
        left = b.sub(frame.index("count"), begin)
        size = b.select(b.icmp_signed("<", left, INDEX(PIECE)), left, INDEX(PIECE))
        with steps(b, INDEX(0), b.add(size, INDEX(_LANES - 1)), _LANES) as part:
            number = b.add(begin, part.counter)
            counters = b.add(wide.splat(b.lshr(number, INDEX(1))), order)
            bits = b.add(wide.splat(frame.index("seed")), b.mul(counters, wide.bits(_GAMMA)))
            for shift, factor in ((30, _FIRST), (27, _SECOND), (31, 1)):
                bits = b.mul(b.xor(bits, b.lshr(bits, wide.bits(shift))), wide.bits(factor))
            ones = b.icmp_unsigned("<", b.bitcast(bits, lanes.bits_type), limit)
            inside = lanes.first(b.sub(size, part.counter))
            lanes.masked_store(
                lanes.select(ones, value, lanes.const(0.0)), after(lanes, frame.pointer("result"), number), inside
            )
    b.ret_void()
    frame.begin(function.blocks[1])
    return module
