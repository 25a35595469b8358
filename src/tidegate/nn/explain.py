"""Which backend runs each cell of a layer, and why the others would not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tidegate.cells.base import Cell
from tidegate.compile.call import Call
from tidegate.compile.select import check_inputs, choose, verdicts
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.inputs import in_rows
from tidegate.nn.recurrent import Recurrent


@dataclass(frozen=True)
class Verdict:
    """One cell of a layer: the backend that runs it, and each backend's refusal, or None where it could."""

    where: str
    cell: str
    chosen: str
    refusals: dict[str, str | None]


@dataclass(frozen=True)
class Explanation:
    """Every cell's `Verdict`; printed, a line for each backend."""

    verdicts: tuple[Verdict, ...]

    def __str__(self) -> str:
        lines = []
        for verdict in self.verdicts:
            does = "cannot run on" if verdict.refusals[verdict.chosen] else "runs on"
            lines.append(f"{verdict.where}: {verdict.cell} {does} {verdict.chosen!r}")
            for name, refusal in verdict.refusals.items():
                said = f"refuses: {refusal}" if refusal else "runs" if name == verdict.chosen else "could run"
                lines.append(f"    {name:<10} {said}")
        return "\n".join(lines)


def explain(
    layer: nn.Module,
    x: Tensor | PackedSequence,
    *,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    **inputs: Tensor,
) -> Explanation:
    """Say which backend runs every cell of `layer` on `x`, and why the others would not. Nothing is run.

    `layer` is a `Recurrent`, or any module with some inside; `x` has the batch and steps of the real input, is
    one sequence, [T, I], or is packed. A named backend that refuses is shown with its refusal: running the layer
    would raise it. `inputs` are what the cells read beside x, by name, as the layers are given them.
    """
    found = [(name, m) for name, m in layer.named_modules() if isinstance(m, Recurrent)]
    if not found:
        raise ConfigError(
            "explaining a layer",
            expected="a Recurrent, or a module with one inside",
            got=type(layer).__name__,
            hint="tg.explain(tg.nn.Recurrent(cell), x)",
        )
    return Explanation(tuple(v for name, each in found for v in _verdicts(name, each, x, lengths, resets, inputs)))


def _verdicts(
    name: str,
    layer: Recurrent,
    x: Tensor | PackedSequence,
    lengths: Tensor | None,
    resets: Tensor | None,
    inputs: Mapping[str, Tensor],
) -> list[Verdict]:
    beside = {n: v if layer.batch_first else v.transpose(0, 1) for n, v in inputs.items()}
    batch, steps = _sizes(x, layer.batch_first)
    said = []
    for index, cell in enumerate(layer.cells):
        assert isinstance(cell, Cell)
        number, backward = divmod(index, layer.directions)
        read = cell.weight_ih.new_empty(batch, steps, cell.input_size, *cell.space_sizes)
        given = check_inputs(cell, read, {n: v for n, v in beside.items() if n in cell.inputs})
        call = in_rows(Call(cell, read, lengths=lengths, resets=resets, given=given))
        said.append(
            Verdict(
                where=f"{name + ' ' if name else ''}layer {number}{' backward' if backward else ''}",
                cell=f"{type(cell).__name__}({cell.input_size}, {cell.hidden_size})",
                chosen=choose(call) if layer.backend == "auto" else layer.backend,
                refusals=verdicts(call),
            )
        )
    return said


def _sizes(x: Tensor | PackedSequence, batch_first: bool) -> tuple[int, int]:
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0]), len(x.batch_sizes)
    if not isinstance(x, Tensor) or x.dim() < 2:
        raise ShapeError(
            "explaining a layer",
            expected="x, a tensor of the shape that the layer runs on",
            got=f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__,
            hint="torch.as_tensor(x, dtype=torch.float32)",
        )
    if x.dim() == 2:
        return 1, x.shape[0]
    return (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
