"""A12: attention against its equations, masks to the bit."""

import pytest
import torch
from torch import Tensor, nn

from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Attention, ExternalAttention, MultiheadAttention
from tidegate.nn.scores import SCORES

BATCH, QUERIES, KEYS, WIDTH = 3, 4, 6, 5
LENGTHS = torch.tensor([6, 2, 0])


def inputs(queries: int = WIDTH) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return (
        torch.randn(BATCH, steps, width, dtype=torch.float64) for steps, width in ((QUERIES, queries), (KEYS, WIDTH))
    )  # type: ignore[return-value]


def built(score: str, **options: object) -> Attention:
    torch.manual_seed(2)
    return Attention(WIDTH, WIDTH, score=score, hidden_size=7, **options).double()  # type: ignore[arg-type]


def score_of(attention: Attention, name: str, h: Tensor, k: Tensor) -> Tensor:
    """One pair, as the papers write it."""
    s = attention.score
    if name == "additive":
        w = torch.cat([s.query.weight[0], s.key.weight[0]])
        return torch.tanh(w @ torch.cat([h, k]) + s.query.bias[0])
    if name in ("bahdanau", "concat"):
        w = torch.cat([s.query.weight, s.key.weight], 1)
        return s.v.weight[0] @ torch.tanh(w @ torch.cat([h, k]) + (0 if s.query.bias is None else s.query.bias))
    if name == "general":
        return h @ s.weight.weight @ k
    return h @ k / (WIDTH**0.5 if name == "scaled_dot" else 1)


def by_hand(
    attention: Attention, name: str, h: Tensor, keys: Tensor, places: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One row, with all its keys real."""
    contexts, weights = [], []
    for t, query in enumerate(h):
        seen = [i for i in range(len(keys)) if places is None or abs(i - places[t].item()) <= 2]
        e = torch.stack([score_of(attention, name, query, keys[i]) for i in seen]).exp()
        alpha = keys.new_zeros(len(keys)).index_copy(0, torch.tensor(seen), e / e.sum())
        if attention.place is not None and places is not None:
            alpha = alpha * torch.exp(-((torch.arange(len(keys)) - places[t]) ** 2) / (2 * (2 / 2) ** 2))
        contexts.append(sum((a * k for a, k in zip(alpha, keys, strict=True)), torch.zeros(WIDTH)))
        weights.append(alpha)
    return torch.stack(contexts), torch.stack(weights)


@pytest.mark.parametrize("name", list(SCORES))
def test_every_score_is_its_equation(name: str) -> None:
    queries, keys = inputs()
    attention = built(name)
    context, weights = attention(queries, keys, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS[:2]):
        expected = by_hand(attention, name, queries[row], keys[row, :length])
        torch.testing.assert_close(context[row], expected[0])
        torch.testing.assert_close(weights[row, :, :length], expected[1])
    assert (context[2] == 0).all()
    assert (weights[2] == 0).all()


@pytest.mark.parametrize("place", ["monotonic", "predicted"])
def test_local_attention_looks_near_its_place(place: str) -> None:
    queries, keys = inputs()
    attention = built("general", window=2, place=place)
    places = torch.arange(QUERIES).expand(BATCH, -1).double()
    if attention.place is not None:
        v, w = attention.place.outer.weight[0], attention.place.inner.weight
        places = LENGTHS[:, None] * torch.sigmoid(torch.tanh(queries @ w.T) @ v)
    context, weights = attention(queries, keys, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS[:1]):
        expected = by_hand(attention, "general", queries[row], keys[row, :length], places[row])
        torch.testing.assert_close(context[row], expected[0])
        torch.testing.assert_close(weights[row], expected[1])
    one, _ = attention.attend(queries[:, 3], attention.memory(keys, lengths=LENGTHS), first=3)
    torch.testing.assert_close(one, context[:, 3])


@pytest.mark.parametrize("name", list(SCORES))
def test_what_padding_holds_changes_no_bit(name: str) -> None:
    queries, keys = inputs()
    attention = built(name)
    results = []
    for filled in (0.0, float("nan"), 1e300):
        other = keys.clone()
        for row, length in enumerate(LENGTHS):
            other[row, length:] = filled
        other.requires_grad_()
        context, weights = attention(queries, other, lengths=LENGTHS)
        gradients = torch.autograd.grad(context.sin().sum(), [other, *attention.parameters()], allow_unused=True)
        results.append([context, weights, *(g for g in gradients if g is not None)])
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))
        assert all(a.isfinite().all() for a in found)


def test_masks_and_single_queries() -> None:
    queries, keys = inputs()
    attention = built("bahdanau")
    mask = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril()
    context, weights = attention(queries, keys, mask=mask)
    assert (weights[:, 0, 1:] == 0).all()
    torch.testing.assert_close(context[:, 0], keys[:, 0])
    torch.testing.assert_close(weights.sum(-1), torch.ones(BATCH, QUERIES, dtype=torch.float64))
    one, its = attention(queries[:, 2], keys, mask=mask[2].expand(BATCH, -1))
    torch.testing.assert_close(one, context[:, 2])
    torch.testing.assert_close(its, weights[:, 2])


def test_self_attention_leaves_padding_zero() -> None:
    _, keys = inputs()
    attention = built("scaled_dot")
    context, weights = attention(keys, lengths=LENGTHS)
    torch.testing.assert_close(context[1, :2], attention(keys[1:2, :2])[0][0])
    assert (context[1, 2:] == 0).all()
    assert (weights[1, 2:] == 0).all()


def test_values_of_their_own_and_dropout() -> None:
    queries, keys = inputs()
    attention = built("dot", dropout=0.5, value_size=2)
    values = torch.randn(BATCH, KEYS, 2, dtype=torch.float64)
    context, weights = attention.eval()(queries, keys, values)
    torch.testing.assert_close(context, weights @ values)
    found = torch.stack([attention.train()(queries, keys, values)[0] for _ in range(2000)])
    torch.testing.assert_close(found.mean(0), context, atol=0.2, rtol=0)


@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 6}, {"bias": False}])
@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_is_torchs(sizes: dict[str, int], need_weights: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = MultiheadAttention(8, 2, **sizes), nn.MultiheadAttention(8, 2, batch_first=True, **sizes)  # type: ignore[arg-type]
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        if ours.in_proj_bias is not None:
            ours.in_proj_bias.uniform_()
            ours.out_proj.bias.uniform_()
    theirs.load_state_dict(ours.state_dict())
    q, k, v = torch.randn(3, 4, 8), torch.randn(3, 6, ours.kdim), torch.randn(3, 6, ours.vdim)
    lengths, causal = torch.tensor([6, 2, 5]), torch.ones(4, 6, dtype=torch.bool).tril()
    hidden = torch.arange(6) >= lengths[:, None]
    y, weights = ours(q, k, v, lengths=lengths, causal=True, need_weights=need_weights)
    expected, shares = theirs(q, k, v, key_padding_mask=hidden, attn_mask=~causal, average_attn_weights=False)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours(q, k, v, lengths=lengths, mask=causal, need_weights=need_weights)[0], expected)
    if need_weights:
        torch.testing.assert_close(weights, shares)
    else:
        assert weights is None
    torch.testing.assert_close(ours(q, k, v)[0], theirs(q, k, v)[0])


@pytest.mark.parametrize("need_weights", [True, False])
def test_multi_head_does_not_see_padding(need_weights: bool) -> None:
    torch.manual_seed(0)
    attention = MultiheadAttention(8, 2)
    results = []
    for filled in (0.0, float("nan"), 1e30):
        x = torch.randn(BATCH, KEYS, 8, generator=torch.Generator().manual_seed(3))
        for row, length in enumerate(LENGTHS):
            x[row, length:] = filled
        x.requires_grad_()
        y, _ = attention(x, lengths=LENGTHS, need_weights=need_weights)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *attention.parameters()])])
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))
    assert all(a.isfinite().all() for a in results[0])
    assert (results[0][0][1, 2:] == 0).all()


@pytest.mark.parametrize("causal", [False, True])
def test_external_attention_is_its_equation(causal: bool) -> None:
    torch.manual_seed(0)
    attention = ExternalAttention(WIDTH, 4, causal=causal).double()
    results = []
    for filled in (0.0, float("nan")):
        _, x = inputs()
        for row, length in enumerate(LENGTHS):
            x[row, length:] = filled
        x.requires_grad_()
        y = attention(x, lengths=LENGTHS)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *attention.parameters()])])
        for row, length in enumerate(LENGTHS[:2]):
            f = x[row, :length].detach()
            a = f @ attention.keys.weight.T
            shares = a.exp() / (a.exp().cumsum(0) if causal else a.exp().sum(0))
            expected = shares / shares.sum(1, keepdim=True) @ attention.values.weight.T
            torch.testing.assert_close(y[row, :length], expected)
        assert (y[1, 2:] == 0).all()
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results, strict=True))


def test_places_are_exact_in_bfloat16() -> None:
    attention = Attention(4, 4, score="dot", window=1, place="monotonic").bfloat16()
    _, weights = attention(torch.ones(1, 1000, 4, dtype=torch.bfloat16))
    assert (weights[0, 901] > 0).nonzero().flatten().tolist() == [900, 901, 902]


def test_an_outlier_leaves_the_other_steps_their_shares() -> None:
    torch.manual_seed(0)
    attention = ExternalAttention(4, 3)
    with torch.no_grad():
        attention.keys.weight.abs_()
    x = torch.rand(1, 5, 4)
    x[:, 0] = 400
    shares = attention.keys(x).double().log_softmax(1).log_softmax(2).exp().float()
    torch.testing.assert_close(attention(x), attention.values(shares), atol=1e-4, rtol=1e-3)


def test_what_does_not_fit_is_told() -> None:
    queries, keys = inputs()
    attention = built("bahdanau")
    with pytest.raises(ShapeError, match=r"expected keys of shape \[B, S, 5\]; got shape \[3, 6, 4\]"):
        attention(queries, keys[..., :4])
    with pytest.raises(ShapeError, match="mask of booleans"):
        attention(queries, keys, mask=torch.ones(QUERIES, KEYS))
    with pytest.raises(ConfigError, match="queries as wide as keys; got query_size=3, key_size=5"):
        Attention(3, 5, score="dot")
    with pytest.raises(ConfigError, match="window to be a positive number of steps"):
        Attention(3, 5, window=0)
    with pytest.raises(ConfigError, match="place to be one of"):
        Attention(3, 5, window=2, place="nowhere")
    with pytest.raises(ConfigError, match="bahdanau"):
        Attention(3, 5, score="badhanau")
    with pytest.raises(ShapeError, match=r"values, one for each key, of shape \[1, 3, 8\]"):
        MultiheadAttention(8, 2)(torch.zeros(1, 2, 8), torch.zeros(1, 3, 8), torch.zeros(1, 4, 8))
    with pytest.raises(ShapeError, match="mask of booleans"):
        MultiheadAttention(8, 2)(torch.zeros(1, 2, 8), mask=torch.ones(2, 2))
    with pytest.raises(ConfigError, match="embed_dim to be a multiple of num_heads; got 5 and 2"):
        MultiheadAttention(5, 2)
    with pytest.raises(ConfigError, match="dropout to be a probability"):
        Attention(3, 5, dropout=2.0)
    with pytest.raises(ShapeError, match=r"queries of shape \[2, T, 5\]"):
        attention(queries, keys[:2])
    with pytest.raises(ShapeError, match=r"x of shape \[B, T, 5\]"):
        ExternalAttention(5)(torch.zeros(2, 5))


@pytest.mark.parametrize("score", ["bahdanau", "dot"])
def test_what_is_no_tensor_or_of_another_dtype_is_told(score: str) -> None:
    x, attention = torch.zeros(2, 3, 4), Attention(4, 4, score=score)
    for wrong in ([[1.0]], None, 2.0):
        with pytest.raises(ShapeError, match=r"queries, a tensor of shape \[2, T, 4\]; got (list|NoneType|float)"):
            attention(wrong, x)
    with pytest.raises(ShapeError, match=r"keys, a tensor of shape \[B, S, 4\]; got list"):
        attention(x, [[1.0]])
    with pytest.raises(ShapeError, match=r"values, one for each key, of shape \[2, 3, 4\]; got shape \[2, 2, 4\]"):
        attention(x, x, x[:, :2])
    with pytest.raises(ShapeError, match=r"queries of dtype torch\.float32, the weights'; got dtype torch\.float64"):
        attention(x.double(), x)
    with pytest.raises(ShapeError, match=r"keys of .*got dtype torch\.int64"):
        attention(x, x.long())
    with pytest.raises(ShapeError, match=r"mask of booleans, a tensor .* got list"):
        attention(x, mask=[True])
    with pytest.raises(ConfigError, match=r"memory to be a tidegate\.nn\.attention\.Memory; got Tensor\[2, 3, 4\]"):
        attention.attend(x, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention(x, x.bfloat16())[0].shape == (2, 3, 4)


def test_sizes_and_inputs_of_the_others_are_checked() -> None:
    with pytest.raises(ConfigError, match="value_size to be a positive integer; got 0"):
        Attention(4, 4, value_size=0)
    with pytest.raises(ConfigError, match="memory_size to be a positive integer"):
        ExternalAttention(4, memory_size=1.5)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"attending to memories; expected x, a tensor of shape \[B, T, 4\]; got list"):
        ExternalAttention(4)([[1.0]])
    with pytest.raises(ShapeError, match=r"queries, a tensor of shape \[B, T, 8\]; got list"):
        MultiheadAttention(8, 2)([[1.0]])
    with pytest.raises(ShapeError, match=r"keys of shape \[1, S, 8\]; got shape \[2, 3, 8\]"):
        MultiheadAttention(8, 2)(torch.zeros(1, 2, 8), torch.zeros(2, 3, 8))
