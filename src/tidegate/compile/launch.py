"""Runs of compiled functions: memory to work in, what each function is told, and both prepared for one size.

What a function is told are numbers and addresses in one table. For runs of one size all but the addresses is the same:
a `Replay` keeps it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tidegate.compile import memory
from tidegate.compile.llvm import threads

MOST_RECORDS = 64

KEPT_BYTES = 1 << 16
"""So much memory to work in is kept for the next run of the same record: that costs less than to lend it."""

# Looked up once: a run may be so short that more would be felt.
_address = Tensor.data_ptr


class Scratch:
    """Memory that a run works in, from the beginning of a line on: parts of it are `apart` numbers apart."""

    def __init__(self, tensor: Tensor, apart: int) -> None:
        self.tensor = tensor
        self.apart = apart

    def data_ptr(self) -> int:
        return memory.aligned(self.tensor)


class Inside:
    """A place so many bytes behind where a tensor begins."""

    def __init__(self, tensor: Tensor, behind: int) -> None:
        self.tensor = tensor
        self.behind = behind


class Table:
    """Numbers that a compiled function is told, and the slots where addresses belong.

    `keeps` is what the numbers know the address of already.
    """

    def __init__(self, numbers: array[int], keeps: object = None) -> None:
        self.numbers = numbers
        self.keeps = keeps
        self.addresses: list[tuple[int, Tensor | Scratch | Table, int]] = []

    def point(self, slot: int, target: Addressed, behind: int = 0) -> None:
        """Let a slot hold an address: where the target begins, and so many bytes behind."""
        if isinstance(target, Inside):
            self.addresses.append((slot, target.tensor, behind + target.behind))
        else:
            self.addresses.append((slot, target, behind))

    def data_ptr(self) -> int:
        return self.numbers.buffer_info()[0]

    def fill(self) -> None:
        """Write the addresses, in every table that this one points to as well."""
        for slot, target, behind in self.addresses:
            if isinstance(target, Table):
                target.fill()
            self.numbers[slot] = target.data_ptr() + behind


Addressed: TypeAlias = Tensor | Scratch | Table | Inside


class Launch:
    """A compiled function, the table that it is told, and on how many threads it runs."""

    def __init__(self, entry: int, table: Table, workers: int = 1) -> None:
        self.entry = entry
        self.table = table
        self.workers = workers


class Live:
    """A run as it is done: memory is given and functions are launched when they are asked for."""

    def blank(self, *shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
        """Return what `memory.blank` does."""
        return memory.blank(*shape, dtype=dtype, zero=zero)

    def leased(self, *shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
        """Return what `memory.leased` does."""
        return memory.leased(*shape, dtype=dtype, zero=zero)

    def contiguous(self, tensor: Tensor) -> Tensor:
        """Return a tensor dense, copied where it is not."""
        return tensor.contiguous()

    @contextmanager
    def scratch(self, size: int, apart: int = 0) -> Iterator[Scratch]:
        """Lend memory of so many bytes."""
        lent = memory.borrowed(size + memory.LINE)
        yield Scratch(lent, apart)
        memory.given_back(lent)

    def launch(self, *launches: Launch) -> None:
        """Call the functions one after the other."""
        for each in launches:
            each.table.fill()
        for each in launches:
            threads.run(each.entry, each.table.data_ptr(), each.workers)


Doing: TypeAlias = Callable[..., list[Tensor]]
"""A run: it is given a `Live` or a `Recording`, and groups of tensors, and returns some of those made."""

Maker: TypeAlias = tuple[Callable[[Any], Tensor], Any]
"""What makes a tensor, and of what."""


class Recording(Live):
    """A run that is not done, but noted: tensors it gives stand for those that a replay makes."""

    def __init__(self) -> None:
        self._made: list[Tensor] = []
        self._makers: list[Maker] = []
        self._copied: list[tuple[Tensor, Tensor]] = []
        self._lent: list[Scratch] = []
        self._sizes: list[int] = []
        self._launches: list[Launch] = []

    def blank(self, *shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
        return self._make(memory.blank, shape, dtype, zero)

    def leased(self, *shape: int, dtype: torch.dtype, zero: bool = False) -> Tensor:
        return self._make(memory.leased, shape, dtype, zero)

    def _make(self, make: Callable[..., Tensor], shape: Sequence[int], dtype: torch.dtype, zero: bool) -> Tensor:
        new = torch.empty(shape, dtype=dtype, device="meta")
        if new.nbytes < memory.SMALL_BYTES:  # as either does, in half the time
            like = torch.empty(1, dtype=dtype, device="cpu").expand(shape)  # which needs no memory
            self._makers.append((torch.zeros_like if zero else torch.empty_like, like))
        else:
            self._makers.append((lambda shape: make(*shape, dtype=dtype, zero=zero), shape))
        self._made.append(new)
        return new

    def contiguous(self, tensor: Tensor) -> Tensor:
        if tensor.is_contiguous():
            return tensor
        self._copied.append((tensor, torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")))
        return self._copied[-1][1]

    @contextmanager
    def scratch(self, size: int, apart: int = 0) -> Iterator[Scratch]:
        self._sizes.append(-(-size // memory.LINE) * memory.LINE)
        self._lent.append(Scratch(torch.empty(0, device="meta"), apart))
        yield self._lent[-1]

    def launch(self, *launches: Launch) -> None:
        self._launches += launches

    def replay(self, given: Sequence[Tensor], results: Sequence[Tensor]) -> Replay:
        """Return what was noted, to be done on other tensors in place of those given, no two of which are the same.

        `results` are some of those made.
        """
        copies = [copy for _, copy in self._copied]
        sources = {id(each): number for number, each in enumerate([*given, *self._made, *copies, *self._lent])}
        begins: dict[int, int] = {}
        tables: list[Table] = []
        for each in self._launches:
            _gather(each.table, begins, tables)
        outer, inner = [], []
        for table in tables:
            for slot, target, behind in table.addresses:
                place = begins[id(table)] + slot
                if isinstance(target, Table):
                    inner.append((place, begins[id(target)], behind))
                else:
                    outer.append((place, sources[id(target)], behind))
        return Replay(
            makers=self._makers,
            copies=[sources[id(each)] for each, _ in self._copied],
            scratch=self._sizes,
            numbers=array("q", [number for table in tables for number in table.numbers]),
            addresses=outer,
            inner=inner,
            launches=[(each.entry, begins[id(each.table)], each.workers) for each in self._launches],
            results=[sources[id(each)] - len(given) for each in results],
            keeps=[table.keeps for table in tables],
        )


def _gather(table: Table, begins: dict[int, int], tables: list[Table]) -> None:
    """Note a table, and those it points to, and at which number of them all each begins."""
    if id(table) in begins:
        return
    begins[id(table)] = sum(len(each.numbers) for each in tables)
    tables.append(table)
    for _, target, _ in table.addresses:
        if isinstance(target, Table):
            _gather(target, begins, tables)


class Replay:
    """A run of one size: what it makes, and what it launches on tensors given and made.

    `numbers` are those of all tables, `addresses` the slots in them that hold addresses, each with the number of a
    tensor and how many bytes behind it: those given come first, then those made, dense copies of some that are given,
    and scratch memory. `inner` are slots that hold the address of another number of the tables; `launches` say at which
    number what a function is told begins.
    """

    def __init__(
        self, *, makers: Sequence[Maker], copies: Sequence[int], scratch: Sequence[int],
        numbers: array[int], addresses: Sequence[tuple[int, int, int]], inner: Sequence[tuple[int, int, int]],
        launches: Sequence[tuple[int, int, int]], results: Sequence[int], keeps: Sequence[Any],
    ) -> None:  # fmt: skip
        self._makers = makers
        self._copies = copies
        self._scratch = list(accumulate(scratch, initial=memory.LINE))
        self._free: deque[Tensor] = deque()  # each piece goes to one taker
        self._numbers = numbers
        self._addresses = addresses
        size = numbers.itemsize
        self._inner = [(slot, begin * size, behind) for slot, begin, behind in inner]
        self._launches = [(_launching(entry, workers), begin * size) for entry, begin, workers in launches]
        self._results = results
        self._keeps = keeps

    def run(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Run on these tensors; return the results."""
        made = self._make()
        *begins, size = self._scratch
        try:
            scratch = self._free.pop()
        except IndexError:
            scratch = memory.borrowed(size)
        first = memory.aligned(scratch) - memory.LINE
        copies = [given[number].contiguous() for number in self._copies]
        places = [*map(_address, [*given, *made, *copies]), *[first + begin for begin in begins]]
        numbers = self._numbers[:]
        base = numbers.buffer_info()[0]
        for slot, begin, behind in self._inner:
            numbers[slot] = base + begin + behind
        for slot, source, behind in self._addresses:
            numbers[slot] = places[source] + behind
        for launch, begin in self._launches:
            launch(base + begin)
        if size <= KEPT_BYTES:
            self._free.append(scratch)
        else:
            memory.given_back(scratch)
        return [made[number] for number in self._results]

    def _make(self) -> list[Tensor]:
        return [make(of) for make, of in self._makers]


def _launching(entry: int, workers: int) -> Callable[[int], None]:
    """Return what calls a function with the address of what it is told."""
    if workers == 1:
        return threads.function(entry)
    return lambda told: threads.run(entry, told, workers)


class Records:
    """Runs that were recorded, by what they depend on: up to `MOST_RECORDS`."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Replay | None] = {}

    def run(
        self, key: tuple[Any, ...], run: Doing, groups: Sequence[Sequence[Tensor]], may: Callable[[], bool]
    ) -> list[Tensor]:
        """Do a run on these tensors as the first of its key was, on others that lie as these do.

        It may be recorded, which `may` is asked once, where it makes tensors, launches functions and does nothing else.
        """
        try:
            replay = self._known[key]
        except KeyError:
            if len(self._known) >= MOST_RECORDS:
                self._known.clear()
            replay = self._known[key] = _recorded(run, groups) if may() else None
        if replay is None:
            return run(Live(), *groups)
        return replay.run([each for group in groups for each in group])


def _recorded(run: Doing, groups: Sequence[Sequence[Tensor]]) -> Replay:
    recording = Recording()
    # One tensor may be given twice, and another time not.
    stand_ins = [[each.detach() for each in group] for group in groups]
    results = run(recording, *stand_ins)
    return recording.replay([each for group in stand_ins for each in group], results)
