"""Ids and times in the form in which their source gave them, so that predictions join back."""

from __future__ import annotations

import re

import polars as pl

from tidegate.data.encode import ID_TIMES
from tidegate.data.infer import TIMESTAMP, leaf
from tidegate.data.source import Source

_SAMPLE_ROWS = 1000
_CLOCK = r"(?P<H>\d{1,2}):(?P<M>\d{2})(:(?P<S>\d{2})(?P<f>\.(\d{3}|\d{6}))?)?"
_YEAR_FIRST = re.compile(
    r"(?P<Y>\d{4})(?P<sep>[-/])(?P<m>\d{1,2})((?P=sep)(?P<d>\d{1,2}))?"
    rf"((?P<T>[Tt ]){_CLOCK})?(?P<zone> ?(Z|z|UTC|\+00:?00))?"
)
_DAY_FIRST = re.compile(rf"(?P<d>\d{{1,2}})(?P<sep>\.)(?P<m>\d{{1,2}})\.(?P<Y>\d{{4}})((?P<T> ){_CLOCK})?")


def restored(source: Source, name: str, values: pl.Series) -> pl.Series:
    """Return times or ids of column `name` in the source's own type; text of timestamps in its own spelling.

    Text in several spellings, or with an offset from UTC, comes back as ISO 8601 in UTC.
    """
    given = leaf(source.raw.columns[name])
    if given == pl.String and values.dtype == pl.String:
        return values
    if leaf(source.columns[name]) == TIMESTAMP:
        moments = values.str.to_datetime(ID_TIMES, time_unit="us") if values.dtype == pl.String else values
        moments = moments.cast(TIMESTAMP)
        if given == pl.String:
            return _spelled(source, name, moments)
        if isinstance(given, pl.Datetime) and given.time_zone:
            moments = moments.dt.replace_time_zone("UTC").dt.convert_time_zone(given.time_zone)
        return moments.cast(given)
    if given in (pl.Duration, pl.Time):
        return (values.cast(pl.Float64) * 1e6).round().cast(pl.Int64).cast(pl.Duration("us")).cast(given)
    if given == pl.Boolean:
        return values == "true"
    # Text of numbers stays numbers: a CSV file knows no types, and readers of it find numbers too.
    return values if given == pl.String else values.cast(given)


def _spelled(source: Source, name: str, moments: pl.Series) -> pl.Series:
    first = next(source.raw.chunks([name])).frame[name].head(_SAMPLE_ROWS)
    while isinstance(first.dtype, pl.List | pl.Array):
        first = first.explode(empty_as_null=False)
    text = first.drop_nulls().str.strip_chars()
    parsed = text.to_frame().select(source.readings[name].apply(pl.col(name))).to_series()
    text, parsed = text.filter(parsed.is_not_null()), parsed.drop_nulls()
    spelling = _spelling(text[0]) if len(text) else None
    if spelling and (parsed.dt.strftime(spelling) == text).all():
        spelled = moments.dt.strftime(spelling)
        # What the first rows leave out, such as the time of day, later ones may have.
        again = spelled.to_frame(name).select(source.readings[name].apply(pl.col(name))).to_series()
        if again.equals(moments.alias(name), null_equal=True):
            return spelled
    return moments.dt.strftime("%Y-%m-%d %H:%M:%S" + ("" if (moments.dt.microsecond() == 0).all() else "%.6f"))


def _spelling(text: str) -> str | None:
    """Return the strftime format in which `text` is written, None if it is none of those that are read."""
    for pattern in (_YEAR_FIRST, _DAY_FIRST):
        if found := pattern.fullmatch(text):
            return _format(found, year_first=pattern is _YEAR_FIRST)
    return None


def _format(found: re.Match[str], *, year_first: bool) -> str:
    def digits(part: str) -> str:
        return f"%{part}" if len(found[part]) == 2 else f"%-{part}"

    month_day = [digits(part) for part in ("m", "d") if found[part]]
    date = ["%Y", *month_day] if year_first else [*reversed(month_day), "%Y"]
    clock = found["T"] + ":".join([digits("H"), "%M", *(["%S"] if found["S"] else [])]) if found["T"] else ""
    fraction = f"%.{len(found['f']) - 1}f" if found["f"] else ""
    return found["sep"].join(date) + clock + fraction + (found.groupdict().get("zone") or "")
