"""Types of columns that arrive as text: every value is looked at, in bounded memory, then each is converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product

import polars as pl

from tidegate.errors import ConfigError, DataError

MARKERS = ("", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "?", "-")
"""What stands for a missing value, in upper or lower case."""
TYPES = ("number", "boolean", "category", "timestamp")
WORD = "category, markers missing"
"""The type, as `kinds` takes it, of a category that was found and not asked for: "NA" is missing in it, no label."""
TIMESTAMP = pl.Datetime("us")

_MARKED = [m for marker in MARKERS for m in map("".join, product(*({c.lower(), c.upper()} for c in marker)))]
_WORDS = tuple(
    (style(no), style(yes)) for no, yes in (("no", "yes"), ("false", "true")) for style in (str, str.title, str.upper)
)
TRUE_WORDS = tuple(yes for _, yes in _WORDS)
_MIXED, _NUMERIC = 0.9, 0.5
_LOOKS_LIKE_NUMBER = r"^[$€£]? ?[+-]?(\d{1,3}([ '.,\x{a0}]\d{3})+([.,]\d+)?|\d+([.,]\d+)?) ?[%$€£]?$"
_LOOKS_LIKE_TIME = r"^(\d{4}[-/]\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})"
_ZERO_PADDED = r"^[+-]?0\d{2,}$"
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z",
    "%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M", "%d.%m.%Y",
)  # fmt: skip
_KINDS = {"text": "category", WORD: WORD, **{name: name for name in TYPES}}

Place = Callable[[int], str]
"""Says in words where the i-th value of a chunk stands: row, line, column."""


def check_kinds(kinds: dict[str, str] | None) -> dict[str, str]:
    """Return the caller's column types by column, or raise `ConfigError` for a type that does not exist."""
    for name, kind in (kinds or {}).items():
        if kind not in _KINDS:
            raise ConfigError(
                f"reading kinds= for column {name!r}", expected=f"one of {', '.join(TYPES)}", got=repr(kind)
            )
    return {name: _KINDS[kind] for name, kind in (kinds or {}).items()}


def type_of(dtype: pl.DataType) -> str:
    """Return "number", "boolean", "category" or "timestamp" for a column's innermost dtype."""
    inner = leaf(dtype)
    if inner.is_numeric() or inner == pl.Null:
        return "number"
    if inner == pl.Boolean:
        return "boolean"
    return "timestamp" if isinstance(inner, pl.Datetime | pl.Date) else "category"


def leaf(dtype: pl.DataType) -> pl.DataType:
    """Return the dtype of the values inside lists and arrays."""
    while isinstance(dtype, pl.List | pl.Array):
        dtype = dtype.inner if isinstance(dtype.inner, pl.DataType) else dtype.inner()
    return dtype


@dataclass(frozen=True)
class Reading:
    """How a text column is read: its dtype, and for timestamps the formats that occur.

    `verbatim` text has no missing value but the empty one. `words` are those of false and true. `note` says what may
    surprise. A column with a `problem` cannot be read, except as ids: those are whole numbers where `countable` says
    that each is the shortest spelling of one, and text as it stands where not.
    """

    dtype: pl.DataType
    formats: tuple[str, ...] = ()
    verbatim: bool = False
    words: tuple[str, str] | None = None
    countable: bool = False
    note: str = ""
    problem: DataError | None = None

    def apply(self, text: pl.Expr) -> pl.Expr:
        """Return the expression that converts `text`; missing markers become null."""
        clean = without_blanks(text) if self.verbatim else without_markers(text)
        if self.dtype == pl.Boolean:
            return _boolean(clean)
        if self.dtype == TIMESTAMP:
            return pl.coalesce([_timestamp(clean, form) for form in self.formats or _FORMATS])
        return clean if self.dtype == pl.String else clean.cast(self.dtype, strict=False)

    def of_ids(self) -> Reading:
        """Return how the column is read where its values tell sequences apart: different text, different ids."""
        return Reading(pl.Int64() if self.countable else pl.String(), verbatim=True)


@dataclass
class Tally:
    """What has been seen of one text column so far."""

    name: str
    file: str
    numeric_text: bool = True
    kind: str | None = None
    present: int = 0
    numbers: int = 0
    integers: int = 0
    booleans: int = 0
    timestamps: int = 0
    numeric: int = 0
    padded: bool = False
    countable: bool = True
    word: str = ""
    formats: list[str] = field(default_factory=list)
    odd_number: str = ""
    odd_time: str = ""
    odd_boolean: str = ""
    infinite: str = ""

    def add(self, text: pl.Series, place: Place) -> None:
        """Count one chunk of values. `place` names the row of an offending one."""
        if self.kind in ("category", WORD):
            self.countable = False
            return
        clean = _series(without_markers(pl.col("text")), text)
        self._count_ids(clean, text)
        real = clean.is_not_null()
        present = int(real.sum())
        self.present += present
        if not present:
            return
        numbers = clean.cast(pl.Float64, strict=False)
        count = int((numbers.is_not_null() & real).sum()) if self.numeric_text else 0
        self.numbers += count
        if count:
            self.integers += clean.cast(pl.Int64, strict=False).count()
            self.padded = self.padded or bool(clean.str.contains(_ZERO_PADDED).any())
            self.infinite = self.infinite or _first(numbers.is_infinite().fill_null(False), clean, place)
        unparsed = real & numbers.is_null()
        self.odd_number = self.odd_number or _first(unparsed, clean, place)
        if count == present and self.kind in (None, "number"):
            self.odd_time = self.odd_time or _first(real, clean, place)
            return
        self.numeric += int(clean.filter(unparsed).str.contains(_LOOKS_LIKE_NUMBER).sum())
        boolean = _series(_boolean(pl.col("text")), clean)
        if not self.booleans and boolean.count():
            self.word = clean.filter(boolean.is_not_null())[0]
        self.booleans += boolean.count()
        self.odd_boolean = self.odd_boolean or _first(real & boolean.is_null(), clean, place)
        self._add_times(clean, real, place)

    def _count_ids(self, clean: pl.Series, text: pl.Series) -> None:
        """Notice whether every value, markers included, is a whole number that prints back to itself."""
        if self.countable and self.numeric_text:
            given = _series(without_blanks(pl.col("text")), text)
            printed = clean.cast(pl.Int64, strict=False).cast(pl.String)
            self.countable = given.equals(printed, null_equal=True)

    def _add_times(self, clean: pl.Series, real: pl.Series, place: Place) -> None:
        left = clean.str.contains(_LOOKS_LIKE_TIME).fill_null(False)
        other = real & ~left
        for form in (*self.formats, *(f for f in _FORMATS if f not in self.formats)):
            if not left.any():
                break
            found = _series(_timestamp(pl.col("text"), form), clean.filter(left)).count()
            if found:
                self.timestamps += found
                if form not in self.formats:
                    self.formats.append(form)
                parsed = _series(_timestamp(pl.col("text"), form), clean)
                left = left & parsed.is_null()
        self.odd_time = self.odd_time or _first(other | left, clean, place)

    def decide(self) -> Reading:
        """Return how to read the column; mixed types and values that are not finite make it a problem."""
        countable = self.countable and self.numeric_text and self.present > 0
        try:
            return replace(self._reading(), countable=countable)
        except DataError as error:
            return Reading(pl.String(), countable=countable, problem=error)

    def _reading(self) -> Reading:
        kind = self.kind or self._found()
        if self.kind:
            self._check_asked(self.kind)
        if kind == "number":
            if self.infinite:
                hint = "write the value as missing (empty or NA)"
                raise self._error("finite numbers", f"a non-finite value, {self.infinite}", hint)
            whole = self.present > 0 and self.integers == self.present
            return Reading(pl.Int64() if whole else pl.Float64())
        if kind == "timestamp":
            return Reading(TIMESTAMP, tuple(self.formats))
        if kind == "boolean":
            return Reading(pl.Boolean(), words=next((pair for pair in _WORDS if self.word in pair), None))
        return Reading(pl.String(), verbatim=kind == "category", note="" if self.kind else self._doubt())

    def _found(self) -> str:
        if not self.present or (self.numbers == self.present and not self.padded):
            return "number"
        if self.booleans == self.present:
            return "boolean"
        if self.timestamps == self.present:
            return "timestamp"
        self._check_mixed()
        return WORD

    def _check_mixed(self) -> None:
        for noun, count, odd in (
            ("number", self.numbers, self.odd_number),
            ("timestamp", self.timestamps, self.odd_time),
        ):
            if self.present > count >= _MIXED * self.present:
                raise self._error(
                    f"one type ({count} of {self.present} values are {noun}s)",
                    f"mixed types in a column: {odd}",
                    f"mark it as missing (empty, NA), or read the column as text: kinds={{{self.name!r}: 'category'}}",
                )

    def _check_asked(self, kind: str) -> None:
        count, odd = {
            "number": (self.numbers, self.odd_number),
            "boolean": (self.booleans, self.odd_boolean),
            "timestamp": (self.timestamps, self.odd_time),
        }.get(kind, (self.present, ""))
        if count < self.present:
            raise self._error(f"a {kind} in every row, as in training or kinds=", odd, "mark it as missing (empty, NA)")

    def _doubt(self) -> str:
        """Say so where text looks like numbers that are spelled in a way that is not read."""
        like = self.numbers + self.numeric
        if self.numbers == self.present or like < _NUMERIC * self.present:
            return ""
        return (
            f"column {self.name!r}: read as a category, though {like:,} of {self.present:,} values look like numbers; "
            f"not read as one: {self.odd_number} (write numbers like 1234.5)"
        )

    def _error(self, expected: str, got: str, hint: str) -> DataError:
        return DataError(f"reading column {self.name!r} of {self.file}", expected=expected, got=got, hint=hint)


def without_blanks(text: pl.Expr) -> pl.Expr:
    """Return `text` stripped of blanks, null where nothing is left."""
    clean = text.str.strip_chars()
    return pl.when(clean == "").then(None).otherwise(clean)


def without_markers(text: pl.Expr) -> pl.Expr:
    """Return `text` stripped of blanks, with the usual marks of a missing value as null."""
    clean = text.str.strip_chars()
    return pl.when(clean.is_in(_MARKED)).then(None).otherwise(clean)


def _boolean(text: pl.Expr) -> pl.Expr:
    word = text.str.to_lowercase()
    false, true = zip(*_WORDS, strict=True)
    return pl.when(word.is_in(true)).then(True).when(word.is_in(false)).then(False).otherwise(None)


def _timestamp(text: pl.Expr, form: str) -> pl.Expr:
    # One spelling before parsing keeps the list of formats short: "T" or a blank, "/" or "-", months as first days.
    even = (
        text.str.replace(r"^(\d{4})/(\d{1,2})/(\d{1,2})", "$1-$2-$3")
        .str.replace(r"^(\d{4}-\d{1,2}-\d{1,2})[Tt]", "$1 ")
        .str.replace(r"^(\d{4})[-/](\d{1,2})$", "$1-$2-01")
        .str.replace(r" ?(UTC|Z|z)$", "+00:00")
    )
    parsed = even.str.to_datetime(form, strict=False, time_unit="us", ambiguous="earliest")
    return parsed.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "z" in form else parsed


def _series(expression: pl.Expr, values: pl.Series) -> pl.Series:
    return values.alias("text").to_frame().select(expression.alias("text")).to_series()


def _first(mask: pl.Series, values: pl.Series, place: Place) -> str:
    at = mask.arg_max() if mask.any() else None
    return "" if at is None else f"{values[at]!r} in {place(at)}"
