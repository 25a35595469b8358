"""Every error Tidegate raises on purpose.

    TidegateError
    ├── InputError          what the user gave cannot be used (exit code 2)
    │   ├── DataError       a table, file, row or column
    │   ├── ConfigError     an option, argument or configuration file
    │   ├── ShapeError      a tensor's shape, dtype or length
    │   └── ArtifactError   a run folder or saved model
    └── BackendError        a backend that was named cannot run this layer

A message has four parts: what was being done, what was expected, what arrived, one thing to try.
"""

from __future__ import annotations


class TidegateError(Exception):
    """Base of every error that Tidegate raises on purpose.

    Parts are joined into one message: `doing` (what was being done), `expected`, `got` (value, shape,
    dtype, file, row, column) and `hint` (one thing to try). Empty parts are left out.
    """

    def __init__(self, doing: str, *, expected: str = "", got: str = "", hint: str = "") -> None:
        self.doing, self.expected, self.got, self.hint = doing, expected, got, hint
        parts = [doing]
        if expected:
            parts.append(f"expected {expected}")
        if got:
            parts.append(f"got {got}")
        if hint:
            parts.append(f"try: {hint}")
        super().__init__("; ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.doing, self.expected, self.got, self.hint)


def _rebuild(kind: type[TidegateError], doing: str, expected: str, got: str, hint: str) -> TidegateError:
    return kind(doing, expected=expected, got=got, hint=hint)


class InputError(TidegateError, ValueError):
    """What the user gave cannot be used. The command line exits with code 2."""


class DataError(InputError):
    """A table, file, row or column cannot be used."""


class ConfigError(InputError):
    """An option, argument or configuration file cannot be used."""


class ShapeError(InputError):
    """A tensor has the wrong shape, dtype or length."""


class ArtifactError(InputError):
    """A run folder or saved model is missing, damaged or of another kind."""


class BackendError(TidegateError, RuntimeError):
    """A backend that was named cannot run this layer. The message says why and what can."""
