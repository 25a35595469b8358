"""Numbers as people read them: plain, never rounded to nothing or to everything."""

from __future__ import annotations

import math

import pytest

from tidegate.report.markup import figures_of, share, table


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.0 %"), (1e-7, "< 0.01 %"), (0.0002, "0.02 %"), (0.004, "0.4 %"), (0.5, "50.0 %"),
        (0.9994, "99.9 %"), (0.99996, "99.9 %"), (1.0, "100.0 %"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_a_share_says_nothing_and_all_only_where_it_is_so(value: float, shown: str) -> None:
    assert share(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (9999.6, "10,000"), (-9999.6, "-10,000"), (9999.4, "9999"), (123456.7, "123,457"), (0.123456, "0.1235"),
        (math.nan, "–"), (math.inf, "–"), (None, "–"), (12345, "12,345"), ("9999.6", "9999.6"),
    ],
)  # fmt: skip
def test_numbers_are_plain(value: float | str | None, shown: str) -> None:
    assert figures_of(value) == shown


def test_a_column_with_a_missing_share_still_stands_to_the_right() -> None:
    assert '<td class="n">–</td>' in table(["Name", "Share"], [["a", share(0.5)], ["b", share(math.nan)]], "")
