"""What a step computes from parameters alone: done once a call, before its loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor
from torch.nn import Module, ModuleDict
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map

from tidegate.cells.base import Cell


@dataclass(frozen=True)
class Shared:
    """A window of value `base` among those that depend on parameters alone."""

    base: int
    row: int = 0
    column: int = 0
    turned: bool = False
    shape: tuple[int, ...] = ()

    def cut(self, base: Tensor) -> Tensor:
        """Return the window of `base` that this is."""
        if base.dim() == 1:
            return base[self.row : self.row + self.shape[0]]
        if base.dim() != 2:
            return base
        height, width = self.shape[::-1] if self.turned else self.shape
        window = base[self.row : self.row + height, self.column : self.column + width]
        return window.t() if self.turned else window


@dataclass(frozen=True)
class Found:
    """A tensor that a step reads: the number of its module and its name there, or itself where no module has it.

    A name alone is that of something drawn for the whole run (`Given.whole`).
    """

    place: tuple[int, str] | Tensor | str


@dataclass(frozen=True)
class Done:
    """An operation on values that depend on parameters alone."""

    function: Any
    args: Any
    kwargs: Any


@dataclass
class Hoisted:
    """What depends on parameters alone, done once a call, in order."""

    entries: list[Found | Done] = field(default_factory=list)
    count: int = 0

    def append(self, entry: Found | Done, results: int) -> int:
        """Keep an entry; return the number of its first value."""
        self.entries.append(entry)
        self.count += results
        return self.count - results

    def values(self, cell: Cell, whole: Mapping[str, Tensor]) -> list[Tensor]:
        """Compute every value from the parameters as they are now and what was drawn, differentiably."""
        found: list[Tensor] = []
        owners: list[Module] = [cell] if cell.owner is None and not cell._modules else modules(cell)
        for entry in self.entries:
            if isinstance(entry, Found):
                place = entry.place
                if isinstance(place, str):
                    found.append(whole[place])
                else:
                    found.append(place if isinstance(place, Tensor) else getattr(owners[place[0]], place[1]))
                continue
            args, kwargs = tree_map(
                lambda a: a.cut(found[a.base]) if isinstance(a, Shared) else a,
                (entry.args, entry.kwargs),
            )
            result = entry.function(*args, **kwargs)
            found.extend(result if isinstance(result, tuple | list) else [result])
        return found


def modules(cell: Cell) -> list[Module]:
    """Return every module whose tensors a step may read: the cell, then those in it and in the layer that owns it."""
    return [*cell.modules(), *(() if cell.owner is None else cell.owner.modules())]


def tensors_of(module: Module) -> list[tuple[str, Tensor]]:
    """Return the tensors that a module has by name: parameters, buffers, plain attributes, and what is parametrised.

    What makes a parametrised weight is not looked into: it may change with every call.
    """
    plain = [(name, value) for name, value in vars(module).items() if isinstance(value, Tensor)]
    made = module.parametrizations if parametrize.is_parametrized(module) else None
    computed = [(name, getattr(module, name)) for name in (made if isinstance(made, ModuleDict) else ())]
    return [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False), *plain, *computed]


def window(base: Shared, name: str, args: Any) -> Shared:
    """Return `base` transposed or sliced, which stays a window of the same value."""
    if name == "t":
        return replace(base, turned=not base.turned)
    dim, start, *_ = (*args[1:], 0, 0, 0)[:2]
    start = slice(start, None).indices(args[0].shape[dim])[0]
    down = args[0].dim() == 1 or (dim % 2 == 0) is not base.turned
    return replace(base, row=base.row + start) if down else replace(base, column=base.column + start)


def is_window(name: str, args: Any) -> bool:
    """Whether an operation transposes or slices its first argument, and does no more."""
    dims = args[0].dim()
    return (name == "t" and dims == 2) or (name == "slice" and dims in (1, 2) and (*args[1:], 1, 1, 1, 1)[3] == 1)
