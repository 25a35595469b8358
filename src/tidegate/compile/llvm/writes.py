"""What the elementwise part of a stage writes to the caller's memory, a vector of each, as IR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, Lanes


@dataclass(frozen=True)
class Write:
    """A vector and its place; `added` to what is there, or, where it is not read soon, maybe `past_cache`.

    At `following` the next step will write.
    """

    value: ir.Value
    place: ir.Value
    added: bool = False
    following: ir.Value | None = None
    past_cache: bool = False


@dataclass
class Writes:
    """Collects what there is to write, and writes it in one branch: where vectors are `whole`, without `mask`.

    A masked store is slow on AVX2. What fills lines of memory goes past the cache where a run is `large`: a cache would
    read the lines first.
    """

    lanes: Lanes
    whole: ir.Value
    mask: ir.Value
    large: ir.Value | None
    found: list[Write] = field(default_factory=list)

    def finish(self) -> None:
        if not self.found:
            return
        with self.lanes.builder.if_else(self.whole) as (whole, part):
            with whole:
                self._write_whole()
            with part:
                self._write_part()

    def _write_whole(self) -> None:
        past = [w for w in self.found if w.past_cache and self.large is not None]
        self._store([w for w in self.found if w not in past])
        if not past:
            return
        b, lanes = self.lanes.builder, self.lanes
        bits = reduce(b.or_, [b.ptrtoint(w.place, INDEX) for w in past])
        in_line = b.icmp_unsigned("==", b.and_(bits, INDEX(lanes.count * lanes.bytes - 1)), INDEX(0))
        with b.if_else(b.and_(self.large, in_line)) as (lines, others):
            with lines:
                for w in past:
                    lanes.store_past_cache(w.value, w.place)
            with others:
                self._store(past)

    def _store(self, writes: Sequence[Write]) -> None:
        lanes = self.lanes
        for w in writes:
            if w.following is not None:
                lanes.prefetch(w.following, write=True)
            lanes.store(lanes.add(lanes.load(w.place), w.value) if w.added else w.value, w.place)

    def _write_part(self) -> None:
        lanes = self.lanes
        for w in self.found:
            if w.following is not None:
                lanes.prefetch(w.following, write=True)
            total = lanes.add(lanes.masked_load(w.place, self.mask), w.value) if w.added else w.value
            lanes.masked_store(total, w.place, self.mask)
