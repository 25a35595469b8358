"""Small products here as well: one thread, as in the generated tests."""

from contract.conftest import one_thread

__all__ = ["one_thread"]
