"""The linear recurrence against its loop, and linear cells on the scan against the reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import tidegate.cells  # noqa: F401
from tidegate.cells.base import CELLS, Cell
from tidegate.cells.linear import MinGRU
from tidegate.compile import linear, pages, reference, scan, segments
from tidegate.compile.call import Call
from tidegate.compile.linear import linear_recurrence
from tidegate.errors import BackendError, ShapeError

TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-5}
LINEAR = [name for name, kind in CELLS.items() if hasattr(kind, "coefficients")]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nothing_is_zero_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for results holds NaN until it is written."""
    monkeypatch.setattr(pages, "empty", lambda shape, like: like.new_full(shape, float("nan")))


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "chunk_steps", lambda *_: 7)


def looped(
    a: Tensor,
    b: Tensor,
    h0: Tensor,
    lengths: Tensor | None = None,
    resets: Tensor | None = None,
    fresh: Tensor | None = None,
    *,
    is_complex: bool = False,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    if is_complex:
        a, b, h0 = (torch.complex(*each.chunk(2, -1)) for each in (a, b, h0))
        fresh = None if fresh is None else torch.complex(*fresh.chunk(2, -1))
    a, h, found = a.expand(b.shape), h0, []
    fresh = torch.zeros_like(h0) if fresh is None else fresh
    for t in range(b.shape[1]):
        before = h if resets is None else torch.where(resets[:, t, None], fresh, h)
        new = a[:, t] * before + b[:, t]
        real = None if lengths is None else (t < lengths)[:, None]
        h = new if real is None else torch.where(real, new, h)
        found.append(new if real is None else torch.where(real, new, 0))
    pair = torch.stack(found, 1), h
    return tuple(torch.cat([x.real, x.imag], -1) for x in pair) if is_complex else pair  # type: ignore[return-value]


def assert_same(run: tuple[Tensor, ...], wanted: tuple[Tensor, ...], inputs: list[Tensor], tolerance: float) -> None:
    """Values and the gradients of `inputs` agree, relative to the largest number of each."""
    weights = [torch.randn_like(each) for each in wanted]
    found = [torch.autograd.grad(outputs, inputs, weights) for outputs in (run, wanted)]
    for one, other in zip((*run, *found[0]), (*wanted, *found[1]), strict=True):
        assert one.shape == other.shape
        scale = max(other.abs().max().item(), 1e-3)
        assert (one - other).abs().max().item() <= tolerance * scale


def drawn(batch: int, steps: int, width: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    sizes = [(batch, steps, width), (batch, steps, width), (batch, width)]
    a, b, h0 = (torch.randn(*size, dtype=dtype) for size in sizes)
    return [each.requires_grad_() for each in (a.sigmoid(), b, h0)]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("steps", [1, 2, 33, 1000])
def test_equals_the_loop(dtype: torch.dtype, steps: int) -> None:
    for batch in (1, 2, 17):
        for width in (1, 17, 64, 100):
            if steps < 1000 or (batch, width) in ((1, 17), (2, 100)):
                inputs = drawn(batch, steps, width, dtype)
                assert_same(linear_recurrence(*inputs), looped(*inputs), inputs, TOLERANCES[dtype])


@pytest.mark.parametrize("shape", [(3, 20), (3, 1), (1, 20), (1, 1)], ids=str)
@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "chunks"])
def test_lengths_resets_and_shared_factors(
    shape: tuple[int, int], is_complex: bool, parts: bool, request: pytest.FixtureRequest
) -> None:
    if parts:
        request.getfixturevalue("chunked")
    for width in (2, 84):
        a, b, h0 = drawn(3, 20, width)
        a = torch.rand(*shape, width, dtype=torch.float64, requires_grad=True)
        fresh = torch.randn(3, width, dtype=torch.float64, requires_grad=True)
        lengths, resets = torch.tensor([20, 0, 13]), torch.rand(3, 20) < 0.15
        resets[0, 0] = resets[2, 15] = True
        for marks in ((None, None), (lengths, None), (None, resets), (lengths, resets)):
            inputs = [a, b, h0] if marks[1] is None else [a, b, h0, fresh]
            run, wanted = (f(a, b, h0, *marks, fresh, is_complex=is_complex) for f in (linear_recurrence, looped))
            assert_same(run, wanted, inputs, 1e-12)


def test_numbers_out_of_order_in_memory() -> None:
    a, b, h0 = (each.detach() for each in drawn(2, 9, 12))
    want = looped(a, b, h0)
    turned = [each.transpose(0, 1).contiguous().transpose(0, 1) for each in (a, b)]
    assert_equal(linear_recurrence(*turned, h0), linear_recurrence(a, b, h0))
    last_first = [each.transpose(1, 2).contiguous().transpose(1, 2) for each in (a, b)]
    assert_equal(linear_recurrence(*last_first, h0), linear_recurrence(a, b, h0))
    spread = b[:1, :1].expand(2, 9, 12)
    torch.testing.assert_close(linear_recurrence(spread, b, h0)[0], looped(spread, b, h0)[0])
    torch.testing.assert_close(linear_recurrence(a, b, h0)[0], want[0])


def assert_equal(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> None:
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one, other)


def test_gradcheck() -> None:
    a, b, h0 = drawn(2, 6, 4)
    fresh = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    lengths, resets = torch.tensor([6, 4]), torch.rand(2, 6) < 0.3
    assert torch.autograd.gradcheck(lambda *x: linear_recurrence(*x[:3], lengths, resets, x[3]), (a, b, h0, fresh))
    assert torch.autograd.gradcheck(lambda *x: linear_recurrence(*x, is_complex=True), (a, b, h0))


def test_only_the_last_state_is_used() -> None:
    inputs = drawn(2, 9, 5)
    assert_same(linear_recurrence(*inputs)[1:], looped(*inputs)[1:], inputs, 1e-12)


@pytest.mark.parametrize("at", [0, 1, 8, 19, 20])
def test_split_and_carry_is_the_whole(at: int) -> None:
    a, b, h0 = (each.detach() for each in drawn(2, 20, 17))
    first, carried = linear_recurrence(a[:, :at], b[:, :at], h0)
    second, last = linear_recurrence(a[:, at:], b[:, at:], carried)
    assert_equal((torch.cat([first, second], 1), last), linear_recurrence(a, b, h0))


def every_result(a: Tensor, b: Tensor, h0: Tensor, lengths: Tensor, dh: Tensor, dlast: Tensor) -> tuple[Tensor, ...]:
    inputs = [each.detach().requires_grad_() for each in (a, b, h0)]
    run = linear_recurrence(*inputs, lengths)
    return (*(each.detach() for each in run), *torch.autograd.grad(run, inputs, [dh, dlast]))


def test_a_row_keeps_its_bits() -> None:
    a, b, h0 = (each.detach() for each in drawn(5, 30, 100, torch.float32))
    dh, dlast, lengths = torch.randn(5, 30, 100), torch.randn(5, 100), torch.tensor([30, 3, 21, 0, 30])
    whole = every_result(a, b, h0, lengths, dh, dlast)
    alone = every_result(a[2:3, :21], b[2:3, :21], h0[2:3], lengths[2:3], dh[2:3, :21], dlast[2:3])
    for one, all_rows in zip(alone, whole, strict=True):
        assert torch.equal(one[0], all_rows[2][:21] if one.dim() == 3 else all_rows[2])
    dirty = [each.clone() for each in (a, b, dh)]
    for each in dirty:
        each[1, 3:] = each[2, 21:] = each[3] = float("nan")
    assert_equal(every_result(dirty[0], dirty[1], h0, lengths, dirty[2], dlast), whole)


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "chunks"])
def test_threads_change_no_bit(parts: bool, request: pytest.FixtureRequest) -> None:
    if parts:
        request.getfixturevalue("chunked")
    a, b, h0 = (each.detach() for each in drawn(3, 200, 80, torch.float32))
    dh, dlast, lengths = torch.randn(3, 200, 80), torch.randn(3, 80), torch.tensor([200, 150, 7])
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(every_result(a, b, h0, lengths, dh, dlast))
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])


def test_chunks_are_for_cores_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "CORES", 8)
    assert linear.chunk_steps(1, 80000, 64) == 10000
    assert linear.chunk_steps(2, 80000, 64) == 20000
    assert linear.chunk_steps(1, 4000, 64) == 4000
    assert linear.chunk_steps(8, 80000, 256) == 80000
    assert linear.chunk_steps(1, 0, 0) == 1


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_nothing_to_do(shape: tuple[int, int, int]) -> None:
    a, b, h0 = drawn(*shape)
    h, last = linear_recurrence(a, b, h0)
    assert h.shape == shape
    assert torch.equal(last, h0)
    gradients = torch.autograd.grad(last.sum() + h.sum(), [a, b, h0])
    assert torch.equal(gradients[2], torch.ones_like(h0))


def test_a_second_derivative_names_the_backend_that_has_it() -> None:
    a, b, h0 = drawn(2, 4, 3)
    (da,) = torch.autograd.grad(linear_recurrence(a, b, h0)[0].sum(), a, create_graph=True)
    with pytest.raises(BackendError, match="reference"):
        da.sum().backward()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"a": torch.ones(2, 3, 3)}, r"a of shape \[1, 1, 3\] or"),
        ({"h0": torch.ones(2, 4)}, r"h0 of shape \[2, 3\]"),
        ({"a": torch.ones(2, 4, 3).double()}, "float64"),
        ({"b": torch.ones(2, 4, 3).half()}, "float16"),
        ({"b": torch.ones(4, 3)}, r"b of shape \[B, T, H\]"),
        ({"lengths": torch.ones(2)}, "lengths of shape"),
        ({"resets": torch.ones(2, 3).bool()}, "resets of shape"),
        ({"is_complex": True}, "even"),
    ],
)
def test_what_does_not_fit_is_refused(changed: dict[str, Tensor], says: str) -> None:
    fitting = {"a": torch.ones(2, 4, 3), "b": torch.ones(2, 4, 3), "h0": torch.ones(2, 3)}
    with pytest.raises(ShapeError, match=says):
        linear_recurrence(**{**fitting, **changed})  # type: ignore[arg-type]


def test_the_operator_keeps_torchs_promises() -> None:
    a, b, h0 = drawn(2, 5, 6)
    lengths, resets = torch.tensor([5, 2]), torch.rand(2, 5) < 0.3
    operator = torch.ops.tidegate.linear_recurrence.default
    checks = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
    for arguments in ((a, b, h0, None, None, None, False), (a, b, h0, lengths, resets, h0, True)):
        torch.library.opcheck(operator, arguments, test_utils=checks)


class Layer(torch.nn.Module):
    """A cell on the scan, nothing else."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return scan.unroll(Call(self.cell, x)).outputs


def test_compiled_whole_with_one_node() -> None:
    seen: list[str] = []

    def looking(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in module.graph.nodes if node.op == "call_function")
        return module

    layer, x = Layer(MinGRU(3, 4)), torch.randn(2, 6, 3)
    compiled = torch.compile(layer, fullgraph=True, backend=looking)
    torch.testing.assert_close(compiled(x), layer(x))
    assert len([name for name in seen if "linear_recurrence" in name]) == 1


def test_compiled_gradients() -> None:
    a, b, h0 = drawn(2, 6, 4)
    compiled = torch.compile(linear_recurrence, fullgraph=True, backend="aot_eager")
    assert_same(compiled(a, b, h0), looped(a, b, h0), [a, b, h0], 1e-12)


def test_exported_with_one_node() -> None:
    layer, x = Layer(MinGRU(3, 4)), torch.randn(2, 6, 3)
    exported = torch.export.export(layer, (x,))
    nodes = [node for node in exported.graph.nodes if "linear_recurrence" in str(node.target)]
    assert len(nodes) == 1
    torch.testing.assert_close(exported.module()(x), layer(x))


OPTIONS = {
    "plain": {},
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.3},
    "dropout": {"variational_dropout": 0.3, "recurrent_dropout": 0.2},
}


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_cells_equal_the_reference(name: str, option: str, training: bool) -> None:
    cell = CELLS[name](5, 7, dtype=torch.float64, **OPTIONS[option]).train(training)
    if name == "lru" and option == "zoneout" and training:
        assert "real and imaginary" in refusal(Call(cell, torch.ones(1, 1, 5)))
        return
    x = torch.randn(3, 11, 5, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in cell.state_sizes)
    lengths, resets = torch.tensor([11, 4, 0]), torch.rand(3, 11) < 0.2
    plain = Call(cell, x, given=cell.draw(x), every_state=True)
    for call in (plain, plain._replace(states=states), plain._replace(states=states, lengths=lengths, resets=resets)):
        assert scan.refuses(call) is None
        inputs = [x, *cell.parameters()] if call.states is None else [x, *cell.parameters(), *states[-1:]]
        run, wanted = ((r.outputs, *r.states, *r.every) for r in (scan.unroll(call), reference.unroll(call)))
        assert_same(run, wanted, inputs, 1e-10)


@pytest.fixture
def segmented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small calls run in segments of a few steps."""
    monkeypatch.setattr(segments, "WORTHWHILE_BYTES", 0)
    monkeypatch.setattr(segments, "SEGMENT_BYTES", 2048)


@pytest.mark.usefixtures("segmented")
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("option", ["plain", "layer_norm"])
def test_segments_equal_the_reference(name: str, option: str) -> None:
    cell = CELLS[name](5, 7, dtype=torch.float64, **OPTIONS[option])
    x = torch.randn(3, 11, 5, dtype=torch.float64, requires_grad=True)
    states = tuple(torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in cell.state_sizes)
    lengths, resets = torch.tensor([11, 4, 0]), torch.rand(3, 11) < 0.2
    plain = Call(cell, x)
    for call in (plain, plain._replace(states=states), plain._replace(states=states, lengths=lengths, resets=resets)):
        steps = segments.segment_steps(call)
        assert steps is not None
        assert steps < 11
        inputs = [x, *cell.parameters()] if call.states is None else [x, *cell.parameters(), *states]
        run, wanted = ((r.outputs, *r.states) for r in (scan.unroll(call), reference.unroll(call)))
        wanted = tuple(each + sum(state.sum() * 0 for state in states) for each in wanted)
        assert_same(run, wanted, inputs, 1e-10)


@pytest.mark.usefixtures("segmented")
def test_segments_give_the_gradient_to_what_wants_it() -> None:
    cell, x = MinGRU(5, 7, dtype=torch.float64), torch.randn(2, 9, 5, dtype=torch.float64)
    cell.bias_ih.requires_grad_(False)
    for call in (Call(cell, x), Call(cell, x.clone().requires_grad_())):
        run, wanted = scan.unroll(call), reference.unroll(call)
        inputs = [each for each in (call.x, cell.weight_ih) if each.requires_grad]
        assert_same((run.outputs, *run.states), (wanted.outputs, *wanted.states), inputs, 1e-10)
    with torch.no_grad():
        assert not scan.unroll(Call(cell, x)).outputs.requires_grad


@pytest.mark.usefixtures("segmented")
def test_a_second_derivative_through_segments_is_refused() -> None:
    cell, x = MinGRU(5, 7), torch.randn(2, 9, 5, requires_grad=True)
    (dx,) = torch.autograd.grad(scan.unroll(Call(cell, x)).outputs.sum(), x, create_graph=True)
    with pytest.raises(BackendError, match="reference"):
        dx.sum().backward()


@pytest.mark.usefixtures("segmented")
def test_segments_are_for_what_can_be_computed_again() -> None:
    x = torch.randn(2, 9, 5)
    noisy = MinGRU(5, 7, recurrent_dropout=0.5)
    assert segments.segment_steps(Call(noisy, x, given=noisy.draw(x))) is None
    assert segments.segment_steps(Call(MinGRU(5, 7, zoneout=0.5).eval(), x)) is None
    assert segments.segment_steps(Call(MinGRU(5, 7), x, every_state=True)) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert segments.segment_steps(Call(MinGRU(5, 7), x)) is None
    normed = torch.nn.utils.parametrizations.weight_norm(MinGRU(5, 7), "weight_ih")
    assert segments.segment_steps(Call(normed, x)) is None


@pytest.mark.parametrize("name", LINEAR)
def test_what_padding_holds_changes_nothing(name: str) -> None:
    cell, lengths = CELLS[name](5, 7), torch.tensor([6, 2, 0])
    found = []
    for filling in (0.0, float("nan"), float("inf")):
        x = torch.ones(3, 6, 5)
        x[1, 2:] = x[2] = filling
        x.requires_grad_()
        run = scan.unroll(Call(cell, x, lengths=lengths))
        gradients = torch.autograd.grad(run.outputs.sum() + run.states[-1].sum(), [x, *cell.parameters()])
        found.append((run.outputs, *run.states, *gradients))
    assert_equal(found[0], found[1])
    assert_equal(found[0], found[2])
    assert all(each.isfinite().all() for each in found[1])


@pytest.mark.parametrize("name", LINEAR)
def test_no_steps(name: str) -> None:
    cell = CELLS[name](5, 7, zoneout=0.1).eval()
    for shape in ((2, 0, 5), (0, 3, 5)):
        call = Call(cell, torch.ones(shape), every_state=True)
        run, wanted = scan.unroll(call), reference.unroll(call)
        assert run.outputs.shape == wanted.outputs.shape
        assert_equal(run.states, wanted.states)
        assert_equal(run.every, wanted.every)


def refusal(call: Call) -> str:
    refused = scan.refuses(call)
    assert refused is not None
    return refused()


class Bent(MinGRU):
    """A linear cell with a step that is not."""

    def step(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(self.split(x)[0] + h)


def test_what_is_no_scan_is_refused_with_the_reason() -> None:
    x = torch.ones(1, 2, 3)
    assert "gives no coefficients" in refusal(Call(CELLS["gru"](3, 4), x))
    assert "a step of its own" in refusal(Call(Bent(3, 4), x))
    assert "float16" in refusal(Call(MinGRU(3, 4, dtype=torch.float16), x))
    assert "on meta" in refusal(Call(MinGRU(3, 4), x.to("meta")))
