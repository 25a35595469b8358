"""The recurrent layer: a cell, stacked, in one or both directions, over padded batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tidegate.cells.base import Cell, State
from tidegate.cells.options import check_flags, check_same_at_every_step, check_size, probability
from tidegate.compile.aten import Shape
from tidegate.compile.call import Call, Run
from tidegate.compile.runner import Runners
from tidegate.compile.select import BACKENDS, check_inputs, choose, run, run_stack
from tidegate.compile.settled import is_watched
from tidegate.compile.stepping import Stepper, Steppers
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.inputs import check_input, in_rows, read_lengths, turned
from tidegate.nn.norms import NORMS
from tidegate.nn.stack import CONNECTIONS, Plain, drop
from tidegate.nn.states import StackState, join, part
from tidegate.nn.stream import Stream
from tidegate.shapes import check_resets, reverse_within_lengths, rows_to_frames, zero_padding


class Recurrent(nn.Module):
    """Run a cell over sequences: `output, state = layer(x, state, lengths=lengths, resets=resets)`.

    `cell` is the first layer's forward cell; the others are built like it, with their own parameters and the
    input sizes that follow. Layer l computes `norm(f_l(·))`, then what `connection` adds, then dropout unless
    it is the last.

    - `bidirectional`: a second cell runs each row's real steps from last to first; the outputs are joined.
    - `hidden_sizes`: one hidden size for each layer, the cell's own first. Implies `layers`.
    - `connection`: None, "residual" (also `residual=True`), "highway", "dense" or "skip"; see `nn.stack`.
    - `norm`: None, "batch", "layer" or "rms", after each layer, the last one included.
    - `backend`: "auto" chooses; a name runs or raises `BackendError`. See `explain`.
    - `recompute`: train in less memory. Of T steps, √T states are kept, and what lies between is run a second time
      when gradients are asked for (Chen et al. 2016, 1604.06174, section 4.1). Under `torch.compile` it does nothing.

    `x` [B, T, I] ([T, B, I] without `batch_first`) or a `PackedSequence`, whose output is one too. `lengths`
    [B], 0..T in any order on any device, or a list: from there on, outputs are exactly 0 and states stand
    still, and what `x` holds does not matter. `resets`, booleans laid out as x's first two axes: the state
    before that step is the initial one; the backward direction breaks at the same places.

    `watch`, None unless it is set, runs the cells instead of a backend (see `nn.omega`).

    Outputs and states have the weights' dtype, under autocast too. `torch.compile` and `torch.export` keep
    a compiled cell as one node, take the reference's loop for others, and do not look at the values of `lengths`.

    A cell of frames (`cells.Convolutional`) reads x [B, T, I, *space] and gives [B, T, O, *space]: I, H and O are then
    channels, and wherever a state has H it has H, *space.

    A cell that reads more than x (`Cell.inputs`, as `elapsed`) is given it by name, laid out as x; every layer
    reads the same.

    The state is `torch.nn`'s: [layers·directions, B, H], or a tuple (h, c) of them. Where the layers' sizes
    differ it is a tuple of the cells' own states [B, H_l], layer by layer, forward before backward.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
        connection: str | None = None,
        norm: str | None = None,
        hidden_sizes: Sequence[int] | None = None,
        backend: str = "auto",
        batch_first: bool = True,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        sizes = _hidden_sizes(cell, layers, hidden_sizes)
        flags = {"bidirectional": bidirectional, "residual": residual, "batch_first": batch_first}
        check_flags("building Recurrent", **flags, recompute=recompute)
        self.input_size = cell.input_size
        self.layers = len(sizes)
        self.directions = 2 if bidirectional else 1
        self.dropout = probability("building Recurrent", dropout)
        self.backend = backend
        self.batch_first = batch_first
        self.recompute = recompute
        self.watch: Callable[[Call], Run] | None = None
        if backend != "auto":
            BACKENDS[backend]
        connects = _connection(residual, connection)
        cells: list[Cell] = []
        widths: list[int] = []
        for layer, size in enumerate(sizes):
            reads = connects.width_read(self.input_size, widths)
            forward = cell if layer == 0 else cell.like(reads, size)
            cells.append(forward)
            if bidirectional:
                cells.append(cell.like(reads, size))
            widths.append(self.directions * forward.output_size)
        self.cells = nn.ModuleList(cells)
        self.connection = connects(self.input_size, widths)
        self.norms = None if norm is None else nn.ModuleList(NORMS[norm](width) for width in widths)
        for new in (self.connection, self.norms):
            if new is not None:
                new.to(cell.weight_ih.device, cell.weight_ih.dtype)
        self.output_size = self.connection.output_size
        self._steppers = Steppers()
        self._runners = Runners()

    @property
    def bidirectional(self) -> bool:
        return self.directions == 2

    def forward(
        self,
        x: Tensor | PackedSequence,
        state: StackState | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
        **inputs: Tensor,
    ) -> tuple[Tensor | PackedSequence, StackState]:
        """Run every layer over `x`; return the outputs and the state after each row's last real step.

        Raises `ShapeError` where `x`, `state`, `lengths` or `resets` do not fit, `BackendError` where the
        named backend cannot run this.
        """
        if lengths is None and resets is None and not inputs and self.batch_first:
            done = self._run_prepared(x, state)
            if done is not None:
                return done
        if isinstance(x, PackedSequence):
            return self._forward_packed(x, state, lengths, resets, inputs)
        self._check(x, "B, T" if self.batch_first else "T, B")
        if resets is not None:
            resets = check_resets(resets, (x.shape[0], x.shape[1])).to(x.device)
        if self.batch_first:
            return self._forward(x, state, read_lengths(x, lengths), resets, inputs)
        x = x.transpose(0, 1)
        resets = None if resets is None else resets.transpose(0, 1)
        inputs = {n: each.transpose(0, 1) if isinstance(each, Tensor) else each for n, each in inputs.items()}
        y, state = self._forward(x, state, read_lengths(x, lengths), resets, inputs)
        return y.transpose(0, 1).contiguous(), state

    def reset_parameters(self) -> None:
        """Draw every cell, connection and norm anew, as when the layer was built."""
        for cell in self._cells:
            cell.reset_parameters()
        self.connection.reset_parameters()
        for norm in self.norms or ():
            norm.reset_parameters()  # type: ignore[operator]

    def step(self, x: Tensor, state: StackState | None = None, **inputs: Tensor) -> tuple[Tensor, StackState]:
        """Run every layer one step on `x` [B, I]; return the output [B, O] and the new state.

        A stream of steps equals the whole sequence in evaluation. Raises `ConfigError` when bidirectional, where
        `batch_norm` tells steps apart, and in training where masks are those of a whole run.
        """
        if not (inputs or torch.is_grad_enabled() or is_watched()) and self._steps_compile():
            done = self._steppers.step(self._modules["cells"]._modules, x, state)  # type: ignore[union-attr,arg-type]
            if done is not None:
                return done if len(done) == 2 else (done[0], done[1:])
        self._check_may_step("running one step")
        self._check_noise_of_steps()
        self._check(x, "B")
        y, new = self._forward(x[:, None], state, None, None, _one_step(inputs))
        return y[:, 0], new

    def initial_state(self, batch: int) -> StackState:
        """Return the state before the first step of `batch` rows, which a run without `state` begins with."""
        cells = self._cells
        rows = batch * math.prod(cells[0].space_sizes)
        return join(cells, [cell.initial_state(rows) for cell in cells])

    def stream(self, batch: int = 1, state: StackState | None = None) -> Stream:
        """Return a `Stream` of `batch` rows, from `state` or the cells' initial ones.

        Raises `ConfigError` as `step` does, `ShapeError` where the state does not fit.
        """
        self._check_may_step("making a stream")
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ConfigError(
                "making a stream",
                expected="batch, how many rows it has, to be a positive integer",
                got=f"{batch!r} ({type(batch).__name__})",
                hint="layer.stream(batch=1)",
            )
        cells = self._cells
        state = self.initial_state(batch) if state is None else state
        part(cells, state, cells[0].weight_ih.new_empty(batch, 1))
        return Stream(self, state)

    def _steps_compile(self) -> bool:
        """Whether a step is the cells' steps and nothing else, on a backend that compiles them."""
        parts = self._modules
        is_bare = self.directions == 1 and type(parts["connection"]) is Plain and parts.get("norms") is None
        return is_bare and self.backend in ("auto", "llvm") and not (self.dropout and self.training)

    def _decides_steps(self) -> tuple[list[tuple[object, str]], list[tuple[Mapping[str, object], str]]]:
        """Return the attributes, and the modules by name, that `_steps_compile` decides by."""
        names = ["directions", "backend", "dropout", *(["training"] if self.dropout else [])]
        return [(self, name) for name in names], [(self._modules, name) for name in ("connection", "norms")]

    def _compiled_steps(self, batch: int) -> Stepper | None:
        """Return compiled steps of `batch` rows, as far as there are any."""
        if is_watched() or not self._steps_compile():
            return None
        return self._steppers.of(self._modules["cells"]._modules, batch)  # type: ignore[union-attr,arg-type]

    def _check_may_step(self, doing: str) -> None:
        if self.bidirectional:
            raise ConfigError(
                doing,
                expected="a layer that runs forward only",
                got="bidirectional=True",
                hint="give the whole sequence, or train with bidirectional=False",
            )
        check_same_at_every_step(doing, max(cell.batch_norm for cell in self._every_cell()))

    def _check_noise_of_steps(self) -> None:
        """Raise `ConfigError` where a step would draw anew what a whole run draws once."""
        for cell in self._every_cell() if self.training else ():
            noise = cell.noise
            asked = "dropconnect" if noise.weights else "variational_dropout" if noise.inputs or noise.hidden else None
            if asked:
                raise ConfigError(
                    "running one step in training",
                    expected="noise that every step draws for itself",
                    got=f"{asked}, whose masks are those of a whole run",
                    hint="layer.eval(), or give the whole sequence",
                )

    @property
    def _cells(self) -> list[Cell]:
        return list(self._every_cell())

    def _every_cell(self) -> Iterable[Cell]:
        """Return the cells as they are, and as they will be."""
        return self._modules["cells"]._modules.values()  # type: ignore[union-attr,return-value]

    def _forward(
        self,
        x: Tensor,
        state: StackState | None,
        lengths: Tensor | None,
        resets: Tensor | None,
        inputs: Mapping[str, Tensor],
    ) -> tuple[Tensor, StackState]:
        """`forward` on batch-first, checked input; `lengths` is None when every row is full."""
        cells = self._cells
        if state is not None:
            check_same_at_every_step("going on from a state", max(cell.batch_norm for cell in cells))
        before = [None if s is None else c.unpack(s) for c, s in zip(cells, part(cells, state, x), strict=True)]
        given = check_inputs(cells[0], x, inputs)
        all_rows = in_rows(Call(cells[0], x, None, lengths, resets, given, recompute=self.recompute))
        x, lengths, resets = all_rows.x, all_rows.lengths, all_rows.resets
        choice = None
        bare = type(self.connection) is Plain and self.norms is None and not inputs
        if bare and not self.recompute and self.watch is None:
            choice = choose(all_rows) if self.backend == "auto" else self.backend
            shape = Shape(self.layers, self.dropout, self.training, self.bidirectional)
            whole = run_stack(cells, shape, x, before, lengths, resets, choice)
            if whole is not None:
                return whole
        if lengths is not None:
            x = zero_padding(x, lengths)
        after: list[State] = []

        def one(layer: int, read: Tensor) -> Tensor:
            first = layer * self.directions
            call = all_rows._replace(cell=cells[first], x=read, states=before[first])
            done = self._run(call, None if layer else choice)
            after.append(call.cell.pack(done.states))
            if not self.bidirectional:
                return done.outputs
            back = self._run(turned(call, cells[first + 1], before[first + 1]))
            after.append(call.cell.pack(back.states))
            return torch.cat([done.outputs, reverse_within_lengths(back.outputs, lengths)], dim=-1)

        y = self._stack(x, lengths, one)
        return rows_to_frames(y, cells[0].space_sizes), join(cells, after)

    def _run_prepared(self, x: Tensor | PackedSequence, state: StackState | None) -> tuple[Tensor, StackState] | None:
        """Run full batches without noise by kernels alone, where the layer is nothing more than its cells."""
        if self.recompute or self.watch is not None or not self._steps_compile() or is_watched():
            return None
        done = self._runners.run(self._every_cell(), x, state, self.backend)
        return done and (done[0], done[1] if len(done[1]) > 1 else done[1][0])

    def _run(self, call: Call, choice: str | None = None) -> Run:
        return run(call, self.backend, choice) if self.watch is None else self.watch(call)

    def _stack(self, x: Tensor, lengths: Tensor | None, one: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Take `x` through the layers: `one` at a time, norm, connection, dropout to what those above read."""
        outputs: list[Tensor] = []
        below: list[Tensor] = []
        connection: Plain = self.connection
        for layer in range(self.layers):
            y = one(layer, connection.reads(x, below))
            if self.norms is not None:
                y = self.norms[layer](y, lengths)
            y = connection.joins(x, outputs, y)
            outputs.append(y)
            if self.dropout and self.training and layer < self.layers - 1:
                y = drop(y, self.dropout, lengths)
            below.append(y)
        return connection.gives(outputs)

    def _forward_packed(
        self,
        x: PackedSequence,
        state: StackState | None,
        lengths: object,
        resets: object,
        inputs: Mapping[str, Tensor],
    ) -> tuple[PackedSequence, StackState]:
        if lengths is not None or resets is not None or inputs:
            raise ShapeError(
                "running a PackedSequence",
                expected="no lengths= and no resets=, it has its own lengths, and no input beside x",
                got="one of them",
                hint="give the padded tensor, with lengths= and the others",
            )
        self._check(x.data, "steps")
        padded, packed_lengths = pad_packed_sequence(x, batch_first=True)
        y, state = self._forward(padded, state, read_lengths(padded, packed_lengths.to(padded.device)), None, {})
        if x.sorted_indices is not None:
            y, packed_lengths = y[x.sorted_indices], packed_lengths[x.sorted_indices.cpu()]
        packed = pack_padded_sequence(y, packed_lengths, batch_first=True)
        return x._replace(data=packed.data), state

    def _check(self, x: Tensor, axes: str) -> None:
        cell = next(iter(self._every_cell()))
        check_input(
            x, axes, self.input_size, cell.weight_ih.dtype, space=cell.space_sizes, device=cell.weight_ih.device
        )

    def extra_repr(self) -> str:
        return (
            f"layers={self.layers}, bidirectional={self.bidirectional}, dropout={self.dropout}, "
            f"backend={self.backend!r}, batch_first={self.batch_first}"
        )


def _one_step(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs of one step as those of a run of one; what is no tensor is refused there."""
    return {name: each[:, None] if isinstance(each, Tensor) else each for name, each in inputs.items()}


def _hidden_sizes(cell: object, layers: int, hidden_sizes: Sequence[int] | None) -> list[int]:
    doing = "building Recurrent"
    if not isinstance(cell, Cell):
        raise ConfigError(doing, expected="a cell, built", got=repr(cell), hint="Recurrent(LSTM(64, 128), layers=2)")
    if cell.is_lent or cell._forward_pre_hooks:
        raise ConfigError(
            doing,
            expected="a cell whose weights are its own, without forward hooks",
            got="weights that another layer owns" if cell.is_lent else "hooks, which a layer does not call",
            hint="a new cell; torch.nn.utils.parametrizations instead of the older hooks",
        )
    check_size(cell, "layers", layers)
    if hidden_sizes is None:
        return [cell.hidden_size] * layers
    if not hidden_sizes or layers not in (1, len(hidden_sizes)):
        raise ConfigError(
            doing,
            expected=f"one of hidden_sizes for each of {layers} layers",
            got=repr(hidden_sizes),
            hint="leave layers= out",
        )
    if hidden_sizes[0] != cell.hidden_size:
        raise ConfigError(
            doing,
            expected=f"hidden_sizes to start with the cell's own, {cell.hidden_size}",
            got=repr(hidden_sizes),
            hint="build the cell with hidden_sizes[0]",
        )
    return [check_size(cell, "hidden_sizes", size) for size in hidden_sizes]


def _connection(residual: bool, connection: str | None) -> type[Plain]:
    if residual and connection not in (None, "residual"):
        raise ConfigError(
            "building Recurrent",
            expected="one kind of connection",
            got=f"residual=True and connection={connection!r}",
            hint="leave residual= out",
        )
    name = "residual" if residual else connection
    return Plain if name is None else CONNECTIONS[name]
