"""Tables larger than memory: rows grouped and sorted on disk, then read piece by piece."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tidegate.data.encode import Encoder, Piece
from tidegate.data.grouping import APART, UNSORTED, Grouped, Storage, changes, check_repeats, missing_rows, seen_rows
from tidegate.errors import DataError

BUCKET_BYTES = 64 << 20
_MOST_BUCKETS = 256
_BLOCK_ROWS = 1 << 18


def group_on_disk(encoder: Encoder) -> Grouped:
    """Group and sort in bounded memory.

    The first pass reads ids and times only. Rows that arrive in order are appended to one file a column. Others are
    dealt out to buckets of whole sequences, each small enough to be sorted in memory; a sequence too large for that is
    dealt out once more by time. The files go when the storage does.
    """
    folder = Folder()
    try:
        survey = _survey(encoder)
        columns = _ColumnFiles(folder.path, encoder)
        steps = _deal(encoder, survey, folder.path) if survey.notes else encoder.pieces()
        for piece in steps:
            columns.append(piece)
        storage = columns.finish(folder)
    except OSError as error:
        folder.remove()
        raise DataError(
            f"keeping {encoder.source.name} in temporary files",
            expected=f"room in {folder.path.parent}",
            got=error.strerror or str(error),
            hint="set TMPDIR to a larger disk",
        ) from error
    except BaseException:
        folder.remove()
        raise
    return Grouped(survey.counts, storage, columns.missing, columns.changing, columns.patchy, survey.notes)


class Folder:
    """A temporary folder and the files read from it, gone when nobody refers to them any more, or at exit."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tidegate-"))
        self.opened: list[int] = []
        self.remove = weakref.finalize(self, _remove, self.path, self.opened)

    def open(self, path: Path) -> int:
        """Open a file for `os.pread`; the descriptor is closed with the folder."""
        self.opened.append(os.open(path, os.O_RDONLY))
        return self.opened[-1]


def _remove(path: Path, opened: list[int]) -> None:
    for descriptor in opened:
        os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class OnDisk:
    """A column as raw values in a file. Rows are read, not mapped: mapped pages count as resident memory."""

    folder: Folder
    descriptor: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> np.ndarray:
        row = self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))
        start, stop, _ = slice(start, stop).indices(os.fstat(self.descriptor).st_size // row)
        values = np.empty((max(0, stop - start), *self.shape), self.dtype)
        view, done = values.reshape(-1).view(np.uint8), 0
        while done < view.size:
            done += os.preadv(self.descriptor, [view[done:].data], start * row + done)
        return values


@dataclass
class _Survey:
    counts: np.ndarray
    notes: list[str]


def _survey(encoder: Encoder) -> _Survey:
    """Count the rows of every sequence and find out whether they arrive in order."""
    counts, latest = np.zeros(0, np.int64), np.zeros(0)
    previous, apart, unsorted = 0, False, False
    for piece in encoder.pieces([]):
        sequence, clock = piece.sequence, piece.clock
        size = max(counts.size, int(sequence.max()) + 1)
        counts = np.bincount(sequence, minlength=size) + np.pad(counts, (0, size - counts.size))
        apart = apart or bool(sequence[0] < previous or (sequence[1:] < sequence[:-1]).any())
        previous = int(sequence[-1])
        if clock is None:
            continue
        if latest.size == 0:
            latest = np.zeros(0, clock.dtype)
        lowest = np.iinfo(np.int64).min if clock.dtype.kind == "i" else -np.inf
        latest = np.pad(latest, (0, size - latest.size), constant_values=lowest)
        order = np.argsort(sequence, kind="stable")
        owner, times = sequence[order], clock[order]
        starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        before = np.concatenate([times[:1], times[:-1]])
        before[starts] = latest[owner[starts]]
        unsorted = unsorted or bool((times < before).any())
        np.maximum.at(latest, owner, times)
    return _Survey(counts, [APART] * apart + [UNSORTED] * unsorted)


class _ColumnFiles:
    """One growing file a column; counts what is missing and notices what changes on the way."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder, self.encoder = folder, encoder
        self.files: dict[str, BinaryIO] = {}
        self.last: Piece | None = None
        self.seen: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.missing = dict.fromkeys(encoder.types, 0)
        self.changing: set[str] = set()
        self.patchy: set[str] = set()

    def append(self, piece: Piece) -> None:
        """Write steps that follow those written before."""
        joined = _join(self.last, piece) if self.last else piece
        if joined.clock is not None:
            check_repeats(joined.sequence, joined.clock, joined.rows, self.encoder)
        for number, (name, values) in enumerate(piece.columns.items()):
            if name not in self.files:
                self.files[name] = (self.folder / f"column-{number}").open("wb")
            np.ascontiguousarray(values).tofile(self.files[name])
            self.missing[name] += int(missing_rows(values, self.encoder.types[name]).sum())
            self._compare(name, joined.columns[name], joined.sequence)
        self.last = _take(piece, np.array([-1]))

    def _compare(self, name: str, values: np.ndarray, sequence: np.ndarray) -> None:
        """Notice what changes or is missing within a sequence, the last value seen before included."""
        gone = missing_rows(values, self.encoder.types[name])
        if ((gone[1:] != gone[:-1]) & (sequence[1:] == sequence[:-1])).any():
            self.patchy.add(name)
        seen = seen_rows(values, gone)
        values, sequence = values[seen], sequence[seen]
        if name in self.seen:
            before, owner = self.seen[name]
            values, sequence = np.concatenate([before, values]), np.concatenate([owner, sequence])
        if name not in self.changing and changes(values, sequence):
            self.changing.add(name)
        self.seen[name] = values[-1:].copy(), sequence[-1:].copy()

    def finish(self, folder: Folder) -> dict[str, Storage]:
        """Close the files and open them for reading."""
        storage: dict[str, Storage] = {}
        for name, file in self.files.items():
            file.close()
            values = self.last.columns[name] if self.last else np.zeros(0)
            storage[name] = OnDisk(folder, folder.open(Path(file.name)), values.dtype, values.shape[1:])
        return storage


def _join(first: Piece, second: Piece) -> Piece:
    clock = None if first.clock is None or second.clock is None else np.concatenate([first.clock, second.clock])
    return Piece(
        np.concatenate([first.sequence, second.sequence]),
        clock,
        np.concatenate([first.rows, second.rows]),
        {name: np.concatenate([values, second.columns[name]]) for name, values in first.columns.items()},
    )


def _take(piece: Piece, order: np.ndarray) -> Piece:
    clock = None if piece.clock is None else piece.clock[order]
    columns = {name: values[order] for name, values in piece.columns.items()}
    return Piece(piece.sequence[order], clock, piece.rows[order], columns)


def _deal(encoder: Encoder, survey: _Survey, folder: Path) -> Iterator[Piece]:
    """Deal rows out to buckets of whole sequences, then yield each bucket in order."""
    buckets: list[_Bucket] = []
    bucket_of = np.zeros(0, np.int64)
    most = 0
    for piece in encoder.pieces():
        records = _records(piece)
        if not buckets:
            total = int(survey.counts.sum())
            most = max(1, BUCKET_BYTES // records.itemsize, -(-total // _MOST_BUCKETS))
            bucket_of = _assign(survey.counts, most)
            names = tuple(piece.columns)
            buckets = [_Bucket(folder / f"bucket-{i}", records.dtype, names) for i in range(int(bucket_of[-1]) + 1)]
        _distribute(records, bucket_of[piece.sequence], buckets)
    for bucket in buckets:
        yield from bucket.in_order(most)


def _assign(counts: np.ndarray, most: int) -> np.ndarray:
    """Return the bucket of every sequence, ascending; a sequence of more than `most` rows has one to itself."""
    share = (np.cumsum(counts) - 1) // most
    large = counts > most
    begins = (share[1:] != share[:-1]) | large[1:] | large[:-1]
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(begins)])


def _records(piece: Piece) -> np.ndarray:
    """Return the piece as one array of records, so that a bucket is one file."""
    clock = {} if piece.clock is None else {"clock": piece.clock}
    parts = {"sequence": piece.sequence, "row": piece.rows, **clock}
    fields = [(name, values.dtype, values.shape[1:]) for name, values in parts.items()]
    fields += [(f"column-{i}", v.dtype, v.shape[1:]) for i, v in enumerate(piece.columns.values())]
    records = np.empty(piece.sequence.size, np.dtype(fields))
    for name, values in parts.items():
        records[name] = values
    for i, values in enumerate(piece.columns.values()):
        records[f"column-{i}"] = values
    return records


def _distribute(records: np.ndarray, places: np.ndarray, buckets: list[_Bucket]) -> None:
    order = np.argsort(places, kind="stable")
    bounds = np.searchsorted(places[order], np.arange(len(buckets) + 1))
    for bucket, start, stop in zip(buckets, bounds[:-1], bounds[1:], strict=True):
        if stop > start:
            bucket.write(records[order[start:stop]])


class _Bucket:
    """Records of some sequences in source order, in a file of their own."""

    def __init__(self, path: Path, dtype: np.dtype, columns: tuple[str, ...]) -> None:
        self.path, self.dtype, self.columns, self.rows = path, dtype, columns, 0
        self.timed = "clock" in (dtype.names or ())

    def write(self, records: np.ndarray) -> None:
        with self.path.open("ab") as file:
            records.tofile(file)
        self.rows += records.size

    def in_order(self, most: int) -> Iterator[Piece]:
        """Yield the records by sequence and time, and remove the file."""
        # Buckets of several sequences hold less than twice `most`: one may begin in the share before.
        large = self.rows > 2 * most
        if large and self.timed:
            yield from self._by_time(most)
        elif large:
            yield from map(self._piece, self._blocks())
        elif self.rows:
            whole = np.fromfile(self.path, self.dtype)
            keys = (whole["clock"], whole["sequence"]) if self.timed else (whole["sequence"],)
            yield self._piece(whole[np.lexsort(keys)])
        self.path.unlink(missing_ok=True)

    def _by_time(self, most: int) -> Iterator[Piece]:
        """One sequence, larger than a bucket may be: deal it out by quantiles of time."""
        stride = max(1, self.rows // 100_000)
        sample = np.sort(np.concatenate([block["clock"][::stride] for block in self._blocks()]))
        parts = min(_MOST_BUCKETS, 2 * -(-self.rows // most))
        pivots = np.unique(sample[np.linspace(0, sample.size - 1, parts + 1).astype(np.int64)[1:-1]])
        smaller = [
            _Bucket(self.path.with_name(f"{self.path.name}-{i}"), self.dtype, self.columns)
            for i in range(pivots.size + 1)
        ]
        for block in self._blocks():
            _distribute(block, np.searchsorted(pivots, block["clock"], side="right"), smaller)
        for bucket in smaller:
            # Even if one time were all there is, that is an error to be found by sorting, not a reason to split again.
            yield from bucket.in_order(bucket.rows)

    def _blocks(self) -> Iterator[np.ndarray]:
        with self.path.open("rb") as file:
            while (block := np.fromfile(file, self.dtype, count=_BLOCK_ROWS)).size:
                yield block

    def _piece(self, records: np.ndarray) -> Piece:
        clock = records["clock"] if self.timed else None
        columns = {name: records[f"column-{i}"] for i, name in enumerate(self.columns)}
        return Piece(records["sequence"], clock, records["row"], columns)
