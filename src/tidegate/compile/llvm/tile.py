"""The register tile: a few rows times a few panels, summed over k in registers, as IR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from llvmlite import ir

from tidegate.compile.llvm.lanes import INDEX, Lanes


@dataclass
class Loop:
    """A loop's counter and the values it carries; the body puts the next turn's values into `following`."""

    counter: ir.Value
    carried: list[ir.Value]
    following: list[ir.Value] = field(default_factory=list)


@contextmanager
def steps(
    builder: ir.IRBuilder, start: ir.Value, stop: ir.Value, step: int, carried: Sequence[ir.Value] = ()
) -> Iterator[Loop]:
    """Loop over `start, start + step, …` while a whole step fits before `stop`.

    After the loop `counter` stands where it ended and `carried` holds what the last turn left.
    """
    entry, last = builder.block, builder.sub(stop, INDEX(step))
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    builder.branch(head)
    builder.position_at_end(head)
    loop = Loop(builder.phi(INDEX), [builder.phi(value.type) for value in carried])
    phis = [loop.counter, *loop.carried]
    for phi, value in zip(phis, [start, *carried], strict=True):
        phi.add_incoming(value, entry)
    builder.cbranch(builder.icmp_signed("<=", loop.counter, last), body, end)
    builder.position_at_end(body)
    yield loop
    for phi, value in zip(phis, [builder.add(loop.counter, INDEX(step)), *loop.following], strict=True):
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(end)


def after(lanes: Lanes, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """Return the address `offset` numbers after `pointer`."""
    return lanes.builder.gep(pointer, [offset], inbounds=True, source_etype=lanes.scalar_type)


def strided(lanes: Lanes, pointer: ir.Value, count: ir.Value, step: ir.Value) -> ir.Value:
    """Return the address `count` steps after `pointer`."""
    return after(lanes, pointer, lanes.builder.mul(count, step))


def every(lanes: Lanes, pointer: ir.Value, step: ir.Value, count: int) -> list[ir.Value]:
    """Return `count` addresses from `pointer` on, `step` numbers apart."""
    found = [pointer]
    while len(found) < count:
        found.append(after(lanes, found[-1], step))
    return found


def blocks(builder: ir.IRBuilder, size: ir.Value, block: int) -> ir.Value:
    """Return how many blocks hold `size`."""
    return builder.udiv(builder.add(size, INDEX(block - 1)), INDEX(block))


def halves(lanes: Lanes, pointer: ir.Value) -> list[ir.Value]:
    """Return the addresses of both vectors of a row of a panel."""
    return every(lanes, pointer, INDEX(lanes.count), 2)


@dataclass(frozen=True)
class Product:
    """Rows times packed panels: the arguments of a product, and the tiles that compute a part of it.

    Every tile adds the same terms in the same order with the same fma, so a row's result does not depend on
    the tile it falls into: whether that is one of whole panels or of a half is told by its column.
    """

    lanes: Lanes
    left: ir.Value
    left_step: ir.Value
    panels: ir.Value
    panel_stride: ir.Value
    result: ir.Value
    result_step: ir.Value
    result_panel_step: ir.Value
    depth: ir.Value
    accumulate: ir.Value

    def tile(self, height: int, width: int, row: ir.Value, panel: ir.Value) -> None:
        """Compute `height` rows of `width` panels, from `row` and `panel` on, in 2 · height · width registers."""
        lanes = self.lanes
        rows = every(lanes, strided(lanes, self.left, row, self.left_step), self.left_step, height)
        panels = every(lanes, strided(lanes, self.panels, panel, self.panel_stride), self.panel_stride, width)
        corner = strided(lanes, strided(lanes, self.result, row, self.result_step), panel, self.result_panel_step)
        targets = [
            half
            for line in every(lanes, corner, self.result_step, height)
            for part in every(lanes, line, self.result_panel_step, width)
            for half in halves(lanes, part)
        ]
        with steps(lanes.builder, INDEX(0), self.depth, 1, self._start(targets)) as loop:
            loop.following = self._added(rows, panels, loop.counter, loop.carried)
        for target, value in zip(targets, loop.carried, strict=True):
            lanes.store(value, target)

    def half_tile(self, height: int, row: ir.Value, panel: ir.Value) -> None:
        """Compute `height` rows of a panel's first vector, in 2 · height registers: terms of even k and of odd k apart.

        One chain of additions for each row would leave a machine waiting.
        """
        lanes, one = self.lanes, INDEX(1)
        rows = every(lanes, strided(lanes, self.left, row, self.left_step), self.left_step, height)
        begin = strided(lanes, self.panels, panel, self.panel_stride)
        corner = strided(lanes, strided(lanes, self.result, row, self.result_step), panel, self.result_panel_step)
        targets = every(lanes, corner, self.result_step, height)
        start = [*self._start(targets), *[lanes.const(0.0)] * height]

        def added(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            weight = lanes.load(strided(lanes, begin, k, INDEX(2 * lanes.count)))
            return [lanes.fma(self._number(row, k), weight, total) for row, total in zip(rows, sums, strict=True)]

        with steps(lanes.builder, INDEX(0), self.depth, 2, start) as pair:
            even, odd = pair.carried[:height], pair.carried[height:]
            pair.following = [*added(pair.counter, even), *added(lanes.builder.add(pair.counter, one), odd)]
        even, odd = pair.carried[:height], pair.carried[height:]
        with steps(lanes.builder, pair.counter, self.depth, 1, even) as last:
            last.following = added(last.counter, last.carried)
        for target, first, second in zip(targets, last.carried, odd, strict=True):
            lanes.store(lanes.add(first, second), target)

    def _start(self, targets: list[ir.Value]) -> list[ir.Value]:
        """Where the sums begin: what `targets` hold if `accumulate`, else zero, and then they are not read."""
        builder = self.lanes.builder
        before = builder.block
        with builder.if_then(self.accumulate):
            held = [self.lanes.load(target) for target in targets]
            reading = builder.block
        sums = [builder.phi(self.lanes.type) for _ in targets]
        for phi, value in zip(sums, held, strict=True):
            phi.add_incoming(self.lanes.const(0.0), before)
            phi.add_incoming(value, reading)
        return sums

    def _added(self, rows: list[ir.Value], panels: list[ir.Value], k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        lanes, width = self.lanes, INDEX(2 * self.lanes.count)
        weights = [lanes.load(half) for panel in panels for half in halves(lanes, strided(lanes, panel, k, width))]
        following: list[ir.Value] = []
        for row in rows:
            factor = self._number(row, k)
            held = sums[len(following) : len(following) + len(weights)]
            following += [lanes.fma(factor, weight, value) for weight, value in zip(weights, held, strict=True)]
        return following

    def _number(self, row: ir.Value, k: ir.Value) -> ir.Value:
        """Return number k of a row, in every lane."""
        lanes = self.lanes
        return lanes.splat(lanes.builder.load(after(lanes, row, k), align=lanes.bytes, typ=lanes.scalar_type))
