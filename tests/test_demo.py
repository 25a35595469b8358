"""The demo's data are what they say they are."""

from __future__ import annotations

from tidegate.demo import LYNX, digits_frames


def test_lynx_is_the_published_series() -> None:
    assert len(LYNX) == 114
    assert round(sum(LYNX) / 114, 3) == 1538.018
    assert (min(LYNX), max(LYNX)) == (39, 6991)


def test_digits_are_split_without_overlap() -> None:
    train, test = digits_frames()
    assert train["image"].n_unique() == 1437
    assert test["image"].n_unique() == 360
    assert not set(train["image"]) & set(test["image"])
