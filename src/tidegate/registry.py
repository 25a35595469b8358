"""Names at the edges: look a thing up by the name a person types, and say what they may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from tidegate.errors import ConfigError

Item = TypeVar("Item")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the closest of `known`, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    shown = ", ".join(map(repr, names[:40])) + (f" … ({len(names)} in all)" if len(names) > 40 else "")
    return f"one of {shown}" if names else "there are none yet"


class Registry(Generic[Item]):
    """A table of named things. Two of one name are an error of ours; what is defined anew replaces itself."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._items: dict[str, Item] = {}

    def add(self, name: str) -> Callable[[Item], Item]:
        """Return a decorator that registers what it decorates under `name`."""

        def register(item: Item) -> Item:
            if name in self._items and _origin(self._items[name]) != _origin(item):
                raise RuntimeError(f"{self.noun} {name!r} is registered twice")
            self._items[name] = item
            return item

        return register

    def name_of(self, item: Item) -> str:
        """Return the name that a class or function is registered under; one that is not gets its own `__name__`."""
        for name, known in self._items.items():
            if known is item:
                return name
        own: str = item.__name__  # type: ignore[attr-defined]
        self.add(own)(item)
        return own

    def __getitem__(self, name: str) -> Item:
        try:
            return self._items[name]
        except (KeyError, TypeError):
            raise ConfigError(
                f"choosing the {self.noun}",
                expected=f"a known {self.noun}",
                got=repr(name),
                hint=did_you_mean(str(name), self._items),
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def items(self) -> Iterable[tuple[str, Item]]:
        return self._items.items()


def _origin(item: object) -> tuple[object, object]:
    return getattr(item, "__module__", None), getattr(item, "__qualname__", id(item))
