"""The linear recurrence `h_t = a_t⊙h_{t-1} + b_t` and its derivative as IR: one pass over time each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

from llvmlite import ir

from tidegate.compile.llvm.channels import Tile, Values
from tidegate.compile.llvm.engine import compile_module
from tidegate.compile.llvm.host import host
from tidegate.compile.llvm.lanes import INDEX, POINTER, Lanes
from tidegate.compile.llvm.segments import BYTE, define_search, turns
from tidegate.compile.llvm.subnormal import Flushed
from tidegate.compile.llvm.tile import after, steps

WIDTHS = (8, 2)

SIZES = ("next", "never", "rows", "steps", "channels", "chunk_steps", "chunks", "block", "stretch", "lengths", "resets")
TENSORS = ("a", "b", "dh", "h", "h0", "fresh", "da", "db", "dfresh", "state", "factor")
FIELDS = (*SIZES, *(f"{name}{part}" for name in TENSORS for part in ("", "_row", "_step")))
"""The argument block, 64-bit integers: sizes and strides in numbers, addresses in bytes, 0 for a tensor that is not.

`next` is the address of a zero that the threads count tasks with, `never` is 0.
"""


@dataclass(frozen=True)
class Kind:
    """What a module is made for: numbers, and whether large results go past the cache (aligned to its lines)."""

    real: str
    lanes: int
    is_complex: bool
    streaming: bool
    triple: str

    @property
    def name(self) -> str:
        return f"recurrence_{self.real}{'_complex' if self.is_complex else ''}{'_streaming' if self.streaming else ''}"


class Pass:
    """One pass over time as the function `void f(i64 *arguments)`, which every thread runs until no task is left.

    A task is a block of channels of one chunk of one row. It goes through time in stretches, and in each through
    its channels tile by tile, so that memory is read nearly in order. What a tile carries from step to step stays
    in registers within a stretch, and in buffers [rows, chunks, channels] between them.
    """

    backwards: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[tuple[str, ...]]

    def __init__(self, kind: Kind, function: ir.Function, search: ir.Function) -> None:
        self.kind = kind
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.lanes = Lanes(self.builder, kind.real, kind.lanes)
        self.block = function.args[0]
        self.search = search

    def __getitem__(self, field: str) -> ir.Value:
        return self.fields[field]

    def define(self) -> None:
        builder = self.builder
        self.fields = {name: self._argument(place) for place, name in enumerate(FIELDS)}
        flushed = Flushed(builder)
        counter = builder.inttoptr(self["next"], POINTER)
        blocks = self._pieces(self["channels"], self["block"])
        tasks = builder.mul(blocks, builder.mul(self["rows"], self["chunks"]))

        def fetch() -> ir.Value:
            return builder.atomic_rmw("add", counter, INDEX(1), "monotonic")

        with turns(builder, fetch(), lambda task: builder.icmp_signed("<", task, tasks)) as loop:
            self._task(builder.sdiv(loop.counter, blocks), builder.srem(loop.counter, blocks))
            loop.following = [fetch()]
        flushed.end()
        if self.kind.streaming:
            builder.fence("seq_cst")
        builder.ret_void()

    def _argument(self, place: int) -> ir.Value:
        return self.builder.load(self.builder.gep(self.block, [INDEX(place)], source_etype=INDEX), align=8, typ=INDEX)

    def _pieces(self, whole: ir.Value, piece: ir.Value) -> ir.Value:
        return self.builder.sdiv(self.builder.sub(self.builder.add(whole, piece), INDEX(1)), piece)

    def _task(self, cell: ir.Value, block: ir.Value) -> None:
        builder = self.builder
        self.cell = cell
        self.row = builder.sdiv(cell, self["chunks"])
        start = builder.mul(builder.srem(cell, self["chunks"]), self["chunk_steps"])
        whole = self._least(builder.add(start, self["chunk_steps"]), self["steps"])
        stop = self._most(start, self._least(whole, self._length()))
        first = builder.mul(block, self["block"])
        last = self._least(builder.add(first, self["block"]), self["channels"])
        turns_ = self._pieces(builder.sub(stop, start), self["stretch"])
        with steps(builder, INDEX(0), turns_, 1) as loop:
            count = builder.sub(builder.sub(turns_, loop.counter), INDEX(1)) if self.backwards else loop.counter
            low = builder.add(start, builder.mul(count, self["stretch"]))
            high = self._least(builder.add(low, self["stretch"]), stop)
            self._tiles(first, last, lambda tile, c: self._walk(tile, c, low, high))
        if self.writes:
            with steps(builder, stop, whole, 1) as padding:
                self._tiles(first, last, lambda tile, c: self._clear(tile, c, padding.counter))

    def _length(self) -> ir.Value:
        """This row's length, or all steps where there are no lengths."""
        builder = self.builder
        known = builder.icmp_signed("!=", self["lengths"], INDEX(0))
        place = builder.select(
            known, builder.add(self["lengths"], builder.mul(self.row, INDEX(8))), self._place("steps")
        )
        return builder.load(builder.inttoptr(place, POINTER), align=8, typ=INDEX)

    def _place(self, field: str) -> ir.Value:
        return self.builder.ptrtoint(
            self.builder.gep(self.block, [INDEX(FIELDS.index(field))], source_etype=INDEX), INDEX
        )

    def _least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", x, y), x, y)

    def _most(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed(">", x, y), x, y)

    def _tiles(self, first: ir.Value, last: ir.Value, emit: Callable[[Tile, ir.Value], None]) -> None:
        """Cover the channels from `first` to `last` with the widest tiles that fit."""
        builder, apart = self.builder, self["channels"] if self.kind.is_complex else None
        channel = first
        for width in WIDTHS:
            width //= 2 if self.kind.is_complex else 1
            with steps(builder, channel, last, width * self.kind.lanes) as across:
                emit(Tile(self.lanes, width, None, apart, self.kind.streaming), across.counter)
            channel = across.counter
        with turns(builder, channel, lambda c: builder.icmp_signed("<", c, last)) as rest:
            left = builder.sub(last, rest.counter)
            emit(Tile(self.lanes, 1, self.lanes.first(left), apart, False), rest.counter)
            rest.following = [builder.add(rest.counter, INDEX(self.kind.lanes))]

    def _walk(self, tile: Tile, channel: ir.Value, low: ir.Value, high: ir.Value) -> None:
        """Go from `low` to `high`, or back, in segments that begin where the state is reset."""
        builder = self.builder
        resets = builder.add(self["resets"], builder.mul(self.row, self["steps"]))
        known = builder.icmp_signed("!=", self["resets"], INDEX(0))
        resets = builder.inttoptr(builder.select(known, resets, INDEX(0)), POINTER)
        going = ("<", high) if not self.backwards else (">", low)
        with turns(
            builder, high if self.backwards else low, lambda t: builder.icmp_signed(going[0], t, going[1])
        ) as walk:
            here = walk.counter
            other = builder.call(self.search, [resets, here, low if self.backwards else high])
            begin, end = (other, here) if self.backwards else (here, other)
            place = builder.select(known, builder.add(builder.ptrtoint(resets, INDEX), begin), self._place("never"))
            flag = builder.load(builder.inttoptr(place, POINTER), align=1, typ=BYTE)
            self.segment(tile, channel, begin, end, builder.icmp_signed("!=", flag, BYTE(0)))
            walk.following = [other]

    def _clear(self, tile: Tile, channel: ir.Value, step: ir.Value) -> None:
        for name in self.writes:
            tile.store(tile.zeros(), self.at(name, step, channel), past_cache=True)

    def at(self, name: str, step: ir.Value, channel: ir.Value) -> ir.Value:
        """The address of [row, step, channel] of the tensor `name`."""
        builder = self.builder
        offset = builder.add(builder.mul(self.row, self[f"{name}_row"]), builder.mul(step, self[f"{name}_step"]))
        return self._offset(name, builder.add(offset, channel))

    def kept(self, name: str, channel: ir.Value) -> ir.Value:
        """The address of [row, chunk, channel] of the buffer `name`."""
        width = self["channels"] if not self.kind.is_complex else self.builder.shl(self["channels"], INDEX(1))
        return self._offset(name, self.builder.add(self.builder.mul(self.cell, width), channel))

    def of_row(self, name: str, channel: ir.Value) -> ir.Value:
        """The address of [row, channel] of the tensor `name`."""
        return self._offset(name, self.builder.add(self.builder.mul(self.row, self[f"{name}_row"]), channel))

    def _offset(self, name: str, offset: ir.Value) -> ir.Value:
        return after(self.lanes, self.builder.inttoptr(self[name], POINTER), offset)

    def over_time(
        self,
        begin: ir.Value,
        end: ir.Value,
        channel: ir.Value,
        carried: Sequence[Values],
        turn: Callable[[dict[str, ir.Value], list[Values], ir.Value], list[Values]],
    ) -> list[Values]:
        """Loop over the steps of a segment, with addresses that move along and the values carried."""
        builder, names = self.builder, (*self.reads, *self.writes)
        first = builder.sub(end, INDEX(1)) if self.backwards else begin
        flat = [value for values in carried for value in values]
        with steps(
            builder, INDEX(0), builder.sub(end, begin), 1, [*(self.at(n, first, channel) for n in names), *flat]
        ) as loop:
            places = dict(zip(names, loop.carried, strict=False))
            found = turn(places, _grouped(loop.carried[len(names) :], carried), loop.counter)
            moved = []
            for name, place in places.items():
                step = self[f"{name}_step"]
                moved.append(after(self.lanes, place, builder.neg(step) if self.backwards else step))
            loop.following = [*moved, *(value for values in found for value in values)]
        return _grouped(loop.carried[len(names) :], carried)

    def segment(self, tile: Tile, channel: ir.Value, begin: ir.Value, end: ir.Value, reset: ir.Value) -> None:
        raise NotImplementedError


class Forward(Pass):
    """`h_t = a_t⊙h_{t-1} + b_t`."""

    reads, writes = ("a", "b"), ("h",)

    def segment(self, tile: Tile, channel: ir.Value, begin: ir.Value, end: ir.Value, reset: ir.Value) -> None:
        builder, state = self.builder, self.kept("state", channel)
        before = tile.load(builder.select(reset, self.of_row("fresh", channel), state))

        def turn(at: dict[str, ir.Value], carried: list[Values], _: ir.Value) -> list[Values]:
            h = tile.fma(tile.load(at["a"]), carried[0], tile.load(at["b"]))
            tile.store(h, at["h"], past_cache=True)
            return [h]

        (last,) = self.over_time(begin, end, channel, [before], turn)
        tile.store(last, state)


class ForwardChunk(Pass):
    """What a chunk does to the state before it, `h_end = factor⊙h_before + state`: both buffers, started as 1 and 0."""

    reads, writes = ("a", "b"), ()

    def segment(self, tile: Tile, channel: ir.Value, begin: ir.Value, end: ir.Value, reset: ir.Value) -> None:
        builder, places = self.builder, [self.kept(name, channel) for name in ("state", "factor")]
        state = tile.load(builder.select(reset, self.of_row("fresh", channel), places[0]))
        factor = [builder.select(reset, self.lanes.const(0.0), v) for v in tile.load(places[1])]

        def turn(at: dict[str, ir.Value], carried: list[Values], _: ir.Value) -> list[Values]:
            a = tile.load(at["a"])
            return [tile.fma(a, carried[0], tile.load(at["b"])), tile.fma(a, carried[1], tile.zeros())]

        for values, place in zip(self.over_time(begin, end, channel, [state, factor], turn), places, strict=True):
            tile.store(values, place)


class Backward(Pass):
    """`g_t = dh_t + conj(a_{t+1})⊙g_{t+1}`, `db = g`, `da_t = conj(h_{t-1})⊙g_t`.

    `state` holds the gradient of the last state, and then that of h0.
    """

    backwards = True
    reads = ("a", "dh", "h")
    writes: ClassVar[tuple[str, ...]] = ("da", "db")

    def segment(self, tile: Tile, channel: ir.Value, begin: ir.Value, end: ir.Value, reset: ir.Value) -> None:
        builder, state = self.builder, self.kept("state", channel)
        whole = builder.icmp_signed("==", begin, INDEX(0))
        first = builder.select(whole, self.of_row("h0", channel), self.at("h", builder.sub(begin, INDEX(1)), channel))
        first = builder.select(reset, self.of_row("fresh", channel), first)
        last = builder.sub(builder.sub(end, begin), INDEX(1))

        def turn(at: dict[str, ir.Value], carried: list[Values], count: ir.Value) -> list[Values]:
            g = tile.plus(tile.load(at["dh"]), carried[0])
            tile.store(g, at["db"], past_cache=True)
            before = after(self.lanes, at["h"], builder.neg(self["h_step"]))
            h = tile.load(builder.select(builder.icmp_signed("==", count, last), first, before))
            da = tile.times_conjugate(h, g)
            rest = self.gradient_of_a(tile, da, at, carried)
            return [tile.times_conjugate(tile.load(at["a"]), g), *rest]

        carried = self.over_time(begin, end, channel, [tile.load(state), *self.sums(tile)], turn)
        with builder.if_then(reset):
            place = self.kept("dfresh", channel)
            tile.store(tile.plus(tile.load(place), carried[0]), place)
        tile.store([builder.select(reset, self.lanes.const(0.0), v) for v in carried[0]], state)
        self.finish(tile, carried, channel)

    def sums(self, tile: Tile) -> list[Values]:  # noqa: ARG002
        return []

    def gradient_of_a(self, tile: Tile, da: Values, at: dict[str, ir.Value], carried: list[Values]) -> list[Values]:  # noqa: ARG002
        tile.store(da, at["da"], past_cache=True)
        return []

    def finish(self, tile: Tile, carried: list[Values], channel: ir.Value) -> None: ...


class BackwardSum(Backward):
    """`Backward` for an a that is the same in every step: da is summed over the steps, into a buffer."""

    writes = ("db",)

    def sums(self, tile: Tile) -> list[Values]:
        return [tile.zeros()]

    def gradient_of_a(self, tile: Tile, da: Values, at: dict[str, ir.Value], carried: list[Values]) -> list[Values]:  # noqa: ARG002
        return [tile.plus(carried[1], da)]

    def finish(self, tile: Tile, carried: list[Values], channel: ir.Value) -> None:
        place = self.kept("da", channel)
        tile.store(tile.plus(tile.load(place), carried[1]), place)


class BackwardChunk(Pass):
    """What a chunk does to the derivative behind it: `factor` and `state` as in `ForwardChunk`."""

    backwards = True
    reads, writes = ("a", "dh"), ()

    def segment(self, tile: Tile, channel: ir.Value, begin: ir.Value, end: ir.Value, reset: ir.Value) -> None:
        places = [self.kept(name, channel) for name in ("state", "factor")]

        def turn(at: dict[str, ir.Value], carried: list[Values], _: ir.Value) -> list[Values]:
            a = tile.load(at["a"])
            g = tile.plus(tile.load(at["dh"]), carried[0])
            return [tile.times_conjugate(a, g), tile.times_conjugate(a, carried[1])]

        carried = self.over_time(begin, end, channel, [tile.load(place) for place in places], turn)
        for values, place in zip(carried, places, strict=True):
            tile.store([self.builder.select(reset, self.lanes.const(0.0), v) for v in values], place)


def _grouped(flat: Sequence[ir.Value], like: Sequence[Values]) -> list[Values]:
    width = len(like[0])
    return [list(flat[at : at + width]) for at in range(0, len(flat), width)]


PASSES = {
    "forward": Forward,
    "backward": Backward,
    "backward_sum": BackwardSum,
    "forward_chunk": ForwardChunk,
    "backward_chunk": BackwardChunk,
}


def module_text(kind: Kind, name: str) -> str:
    """Return the module that defines the pass `name` of `PASSES`."""
    module = ir.Module(f"{kind.name}_{name}")
    module.triple = kind.triple
    chosen = PASSES[name]
    search = define_search(module, "search", -1 if chosen.backwards else 1)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), name)
    function.attributes.add("nounwind")
    chosen(kind, function, search).define()
    return str(module)


class Code(NamedTuple):
    """A compiled pass: where it starts, and the channels of its widest tile."""

    address: int
    block: int


@cache
def compiled(name: str, real: str, is_complex: bool, streaming: bool) -> Code:
    """Return the pass `name` of `PASSES` for this machine."""
    lanes = host().lanes(real)
    kind = Kind(real, lanes, is_complex, streaming, host().triple)
    address = compile_module(module_text(kind, name), [name]).addresses[name]
    return Code(address, lanes * WIDTHS[0] // (2 if is_complex else 1))
