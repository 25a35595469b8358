"""The sizes that are timed, and how they are read."""

from __future__ import annotations

from typing import NamedTuple

from tidegate.errors import ConfigError

STEPS = 100


class Size(NamedTuple):
    """Rows of the batch, units (inputs as many), time steps."""

    batch: int
    hidden: int
    steps: int = STEPS

    def __str__(self) -> str:
        return f"{self.batch}x{self.hidden}" + (f"x{self.steps}" if self.steps != STEPS else "")


GRID = (
    Size(1, 64), Size(8, 64), Size(17, 100), Size(32, 64), Size(32, 128), Size(32, 256), Size(64, 512),
    Size(32, 64, 20), Size(32, 64, 1000),
)  # fmt: skip
QUICK = (Size(1, 64), Size(32, 64))


def read_sizes(text: str) -> tuple[Size, ...]:
    """Return the sizes that `text` names, as in "32x64,8x64x1000": batch, units and, unless 100, steps."""
    return tuple(_read_size(part.strip()) for part in text.split(","))


def _read_size(text: str) -> Size:
    numbers = text.split("x")
    if len(numbers) not in (2, 3) or not all(n.isascii() and n.isdigit() and int(n) for n in numbers):
        raise ConfigError(
            "reading --sizes",
            expected="BATCHxUNITS or BATCHxUNITSxSTEPS, positive whole numbers, commas between",
            got=repr(text),
            hint="--sizes 32x64,8x64x1000",
        )
    return Size(*map(int, numbers))
