"""What a cell is built with, checked."""

from __future__ import annotations

from tidegate.errors import ConfigError


def check_size(owner: object, name: str, size: object) -> int:
    """Return `size`, or raise `ConfigError` unless it is a positive integer."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected=f"{name} to be a positive integer",
            got=f"{size!r} ({type(size).__name__})",
            hint=f"{name}=64",
        )
    return size


def choice(owner: object, name: str, given: str, known: tuple[str, ...]) -> str:
    """Return `given`, or raise `ConfigError` unless it is one of `known`."""
    if given not in known:
        raise ConfigError(
            f"building {type(owner).__name__}",
            expected=f"{name} to be one of {', '.join(map(repr, known))}",
            got=repr(given),
            hint=f"{name}={known[0]!r}",
        )
    return given
