"""How a series' clock goes on: at its own step, and by the calendar where it keeps one."""

from __future__ import annotations

import numpy as np

_DAY = np.timedelta64(1, "D")
_LEAST_MONTH = np.timedelta64(28, "D")
_LEAST_WORKDAYS = 10


def next_times(times: np.ndarray, more: int, kind: str) -> np.ndarray:
    """Return the `more` times [more] that follow `times` [n], of the same dtype.

    Timestamps (microseconds) that tick by whole months keep their day and hour, month ends stay month ends, and days
    without a weekend among them skip weekends. All others go on at the median step.
    """
    ahead = np.arange(1, more + 1)
    if kind == "timestamp":
        moments = times.astype("datetime64[us]")
        found = _months(moments, ahead) if len(times) > 1 else moments[-1] + _DAY * ahead
        found = _workdays(moments, ahead) if found is None else found
        if found is not None:
            return np.asarray(found.astype(np.int64))
    gaps = np.diff(times)
    gaps = gaps[gaps > 0]
    step = np.median(gaps) if gaps.size else 1
    if times.dtype.kind == "i":
        step = round(float(step))
    return np.asarray(times[-1] + (step * ahead).astype(times.dtype))


def _months(moments: np.ndarray, ahead: np.ndarray) -> np.ndarray | None:
    months = moments.astype("datetime64[M]")
    steps = np.diff(months).astype(np.int64)
    if np.diff(moments).min() < _LEAST_MONTH or (steps < 1).any():
        return None
    # Counted from the next month's start, month ends are alike whatever their length.
    for start in (months, months + 1):
        within = moments - start.astype("datetime64[us]")
        if (within == within[-1]).all():
            return np.asarray((start[-1] + int(np.median(steps)) * ahead).astype("datetime64[us]") + within[-1])
    return None


def _workdays(moments: np.ndarray, ahead: np.ndarray) -> np.ndarray | None:
    days = moments.astype("datetime64[D]")
    within = moments - days
    if len(days) < _LEAST_WORKDAYS or not np.is_busday(days).all() or (within != within[-1]).any():
        return None
    if np.median(np.diff(days)) != _DAY or not (np.diff(days) > _DAY).any():
        return None
    return np.asarray(np.busday_offset(days[-1], ahead).astype("datetime64[us]") + within[-1])
