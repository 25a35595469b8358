"""Types of columns that arrive as text: every value is looked at, in bounded memory, then each is converted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from tidegate.errors import ConfigError, DataError

MARKERS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-")
TYPES = ("number", "boolean", "category", "timestamp")
TIMESTAMP = pl.Datetime("us")

_TRUE, _FALSE = ("true", "yes"), ("false", "no")
_MIXED = 0.9
_LOOKS_LIKE_TIME = r"^(\d{4}[-/]\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})"
_ZERO_PADDED = r"^[+-]?0\d{2,}$"
_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z",
    "%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M", "%d.%m.%Y",
)  # fmt: skip
_KINDS = {"text": "category", **{name: name for name in TYPES}}

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
    """How a text column is read: its dtype, and for timestamps the formats that occur."""

    dtype: pl.DataType
    formats: tuple[str, ...] = ()

    def apply(self, text: pl.Expr) -> pl.Expr:
        """Return the expression that converts `text`; missing markers become null."""
        clean = without_markers(text)
        if self.dtype == pl.Boolean:
            return _boolean(clean)
        if self.dtype == TIMESTAMP:
            return pl.coalesce([_timestamp(clean, form) for form in self.formats or _FORMATS])
        return clean if self.dtype == pl.String else clean.cast(self.dtype, strict=False)


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
    padded: bool = False
    formats: list[str] = field(default_factory=list)
    odd_number: str = ""
    odd_time: str = ""
    odd_boolean: str = ""
    infinite: str = ""

    def add(self, text: pl.Series, place: Place) -> None:
        """Count one chunk of values. `place` names the row of an offending one."""
        if self.kind == "category":
            return
        clean = _series(without_markers(pl.col("text")), text)
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
        self.odd_number = self.odd_number or _first(real & numbers.is_null(), clean, place)
        if count == present and self.kind in (None, "number"):
            self.odd_time = self.odd_time or _first(real, clean, place)
            return
        boolean = _series(_boolean(pl.col("text")), clean)
        self.booleans += boolean.count()
        self.odd_boolean = self.odd_boolean or _first(real & boolean.is_null(), clean, place)
        self._add_times(clean, real, place)

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
        """Return how to read the column, or raise `DataError` for mixed types or a value that is not finite."""
        if self.kind:
            self._check_asked(self.kind)
            chosen = self.kind
        elif not self.present or (self.numbers == self.present and not self.padded):
            chosen = "number"
        elif self.booleans == self.present:
            chosen = "boolean"
        elif self.timestamps == self.present:
            chosen = "timestamp"
        else:
            self._check_mixed()
            chosen = "category"
        if chosen == "number" and self.infinite:
            raise self._error(
                "finite numbers", f"a non-finite value, {self.infinite}", "write the value as missing (empty or NA)"
            )
        if chosen == "number":
            whole = self.present > 0 and self.integers == self.present
            return Reading(pl.Int64() if whole else pl.Float64())
        if chosen == "timestamp":
            return Reading(TIMESTAMP, tuple(self.formats))
        return Reading(pl.Boolean() if chosen == "boolean" else pl.String())

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
            raise self._error(f"a {kind} in every row, as kinds= says", odd, "mark it as missing, or change kinds=")

    def _error(self, expected: str, got: str, hint: str) -> DataError:
        return DataError(f"reading column {self.name!r} of {self.file}", expected=expected, got=got, hint=hint)


def without_markers(text: pl.Expr) -> pl.Expr:
    """Return `text` stripped of blanks, with the usual marks of a missing value as null."""
    clean = text.str.strip_chars()
    return pl.when(clean.is_in(MARKERS)).then(None).otherwise(clean)


def _boolean(text: pl.Expr) -> pl.Expr:
    word = text.str.to_lowercase()
    return pl.when(word.is_in(_TRUE)).then(True).when(word.is_in(_FALSE)).then(False).otherwise(None)


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
