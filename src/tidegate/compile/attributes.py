"""What a step may have read of its cell while it was traced, beside tensors: compared from call to call."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType

import torch
from torch import Tensor
from torch.nn import Module

from tidegate.cells.base import Cell
from tidegate.cells.noise import Noise

_PLAIN = (int, float, bool, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, Noise)
_FUNCTIONS = (FunctionType, BuiltinFunctionType, type)
_AT_ONCE = frozenset(_PLAIN)

_UNREAD = frozenset(
    {
        "changes", "_arguments", "_bound", "_drawn", "_placement", "_lent",
        "_non_persistent_buffers_set", "_backward_pre_hooks", "_backward_hooks", "_is_full_backward_hook",
        "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    }
)  # fmt: skip
"""Attributes of every cell and every module that change nothing of a step."""

_EVERYBODYS = _UNREAD | vars(Module()).keys()


def attributes(cell: Cell) -> tuple[object, ...]:
    """Return what all attributes of a cell and of the modules in it are; while that is equal, a trace holds.

    Numbers, texts and containers of them are compared by what they hold, functions and other objects by which they
    are: what changes inside of one is not seen. Of tensors it counts whether there is one.
    """
    return tuple(entry for module in cell.modules() for entry in _of(module))


def cannot_change_unseen(cell: Cell) -> bool:
    """Whether nothing of a cell can become other than by setting an attribute, which gives it another `changes`."""
    return not cell._modules and all(_is_fixed(value) for name, value in vars(cell).items() if name not in _EVERYBODYS)


def _of(module: Module) -> Iterator[object]:
    yield type(module)
    for name, value in vars(module).items():
        if name in _UNREAD or (isinstance(value, dict) and not value):
            continue
        yield name
        if type(value) in _AT_ONCE:
            yield type(value)
            yield value
        else:
            yield _frozen(value)


def _is_fixed(value: object) -> bool:
    if isinstance(value, tuple | frozenset):
        return all(map(_is_fixed, value))
    return isinstance(value, (*_PLAIN, *_FUNCTIONS, Tensor))


def _frozen(value: object) -> Hashable:
    """Return what stands for a value in a comparison."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, Tensor | Module):
        return Tensor if isinstance(value, Tensor) else Module
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_frozen, value))
    if isinstance(value, Mapping):
        return type(value), tuple((_frozen(key), _frozen(each)) for key, each in value.items())
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(_frozen, value))
    if isinstance(value, MethodType):
        return _Same(value.__self__), _Same(value.__func__)
    return _Same(value)


class _Same:
    """Stands for an object that is itself, whatever it is equal to, and does not keep it."""

    def __init__(self, value: object) -> None:
        self._id = id(value)
        try:
            self._alive: weakref.ref[object] | None = weakref.ref(value)
        except TypeError:
            self._alive = None

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same) or self._id != other._id:
            return False
        # Another object may have come where one was.
        return self._alive is None or (other._alive is not None and self._alive() is other._alive() is not None)
