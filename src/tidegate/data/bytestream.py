"""Text files as blocks of whole lines, decompressed on the way, in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tidegate.errors import DataError

BLOCK_BYTES = 8 << 20
MOST_RECORD_BYTES = 64 << 20
_WIDE = (b"\xff\xfe", b"\xfe\xff")


def read_blocks(path: Path, name: str, *, quotes: bool) -> Iterator[tuple[int, bytes]]:
    """Yield (number of the first line, bytes), each block ending with a line end.

    With `quotes`, a line end between double quotes does not end a record. Blank lines that end the file are left out.
    """
    line, rest = 1, b""
    for piece in _pieces(path, name):
        data = rest + piece
        cut = _last_end(data, quotes)
        body = data[:cut].rstrip(b"\r\n")
        if body:
            cut = data.index(b"\n", len(body)) + 1
            _check_text(data[:cut], line, name)
            yield line, data[:cut]
            line += data.count(b"\n", 0, cut)
            data = data[cut:]
        rest = data
        if len(rest) > MOST_RECORD_BYTES:
            raise DataError(
                f"reading {name}",
                expected=f"rows of at most {MOST_RECORD_BYTES >> 20} MiB",
                got=f"a huge field in the row that begins on line {line}" + _open_quote(rest, quotes),
                hint="check the quotes and line ends there",
            )
    if rest.strip(b"\r\n"):
        _check_text(rest, line, name)
        if quotes and rest.count(b'"') % 2:
            raise DataError(
                f"reading {name}",
                expected="every quote closed",
                hint="close it, or double it if it is part of the text",
                got=f"a quote that never closes in the row that begins on line {line}",
            )
        yield line, rest + b"\n"


def _open_quote(rest: bytes, quotes: bool) -> str:
    return ", where a quote never closes" if quotes and b'"' in rest else ""


def _last_end(data: bytes, quotes: bool) -> int:
    if not quotes or b'"' not in data:
        return data.rfind(b"\n") + 1
    array = np.frombuffer(data, np.uint8)
    ends = outside_quotes(np.flatnonzero(array == ord("\n")), np.flatnonzero(array == ord('"')))
    return int(ends[-1]) + 1 if ends.size else 0


def outside_quotes(places: np.ndarray, quotes: np.ndarray) -> np.ndarray:
    """Return those of the sorted `places` that have an even number of the sorted `quotes` before them."""
    return places[np.searchsorted(quotes, places) % 2 == 0] if quotes.size else places


def _check_text(data: bytes, line: int, name: str) -> None:
    at = data.find(b"\0")
    if at >= 0:
        line += data.count(b"\n", 0, at)
        raise DataError(
            f"reading {name}",
            expected="text",
            got=f"a NUL byte on line {line}",
            hint="the file may be binary or damaged; write it again as UTF-8 text",
        )
    if data.isascii():
        return
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        begin = data.rfind(b"\n", 0, error.start) + 1
        line += data.count(b"\n", 0, begin)
        where = f"byte {error.start - begin + 1} of line {line}"
        raise DataError(
            f"reading {name}",
            expected="UTF-8 text",
            got=f"bad UTF-8, byte 0x{data[error.start]:02x} at {where}",
            hint="convert the file with iconv -t UTF-8",
        ) from error


def _pieces(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as plain:
        start = plain.read(4)
        plain.seek(0)
        zipped = start[:2] == b"\x1f\x8b"
        if path.name.lower().endswith(".gz") and not zipped:
            raise DataError(
                f"reading {name}",
                expected="a gzip file, as its name says",
                got=f"first bytes {start[:2].hex(' ')}",
                hint="drop .gz from the name if it is plain text",
            )
        if start[:2] in _WIDE:
            raise DataError(
                f"reading {name}",
                expected="UTF-8 text",
                got="UTF-16 (line 1 begins with its byte order mark)",
                hint="convert the file with iconv -f UTF-16 -t UTF-8",
            )
        yield from _unzipped(plain, name) if zipped else _plain(plain)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    first = True
    while piece := file.read(BLOCK_BYTES):
        yield piece.removeprefix(b"\xef\xbb\xbf") if first else piece
        first = False


def _unzipped(file: BinaryIO, name: str) -> Iterator[bytes]:
    with gzip.open(file) as text:
        try:
            yield from _plain(cast(BinaryIO, text))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"reading {name}",
                expected="a whole gzip file",
                got=f"a truncated or damaged one: {error}",
                hint="copy or download the file again",
            ) from error
