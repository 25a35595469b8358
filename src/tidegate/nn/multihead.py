"""Attention with several heads, and with learned memories instead of a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.options import check_size, probability
from tidegate.errors import ConfigError
from tidegate.nn.inputs import check_input
from tidegate.nn.scores import checked_mask, softmax
from tidegate.shapes import check_lengths, length_mask, zero_padding


class MultiheadAttention(nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention` with `lengths`: the same parameters, the same results, batch first.

        head_i = softmax(W_q,i q (W_k,i k)ᵀ / √(E/heads)) W_v,i v        y = W_o [head_1, …] + b_o

    `y, weights = attention(queries, keys, values, lengths=lengths, mask=mask, causal=False)`. `queries` [B, T, E],
    `keys` [B, S, kdim], `values` [B, S, vdim]; without keys the queries attend to themselves, and their own padding
    gets 0. `lengths` [B] says how many keys of each row are real, `mask` [B, T, S] or [T, S] (true: may look) which of
    them each query sees, `causal` lets query t see keys 0..t. What lies in the padding changes nothing; a query that
    may see nothing gets `b_o`. Weights [B, heads, T, S] are given with `need_weights=True`, else None.

    Source: Vaswani et al. 2017 (1706.03762), section 3.2.2. Deviations from `torch.nn`, for whose calls it does not
    stand in: no `add_bias_kv`, `add_zero_attn` or `key_padding_mask`, masks say what may be seen, and weights are not
    averaged over the heads. Raises `ShapeError` where sizes, `lengths` or `mask` do not fit.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, size in (("embed_dim", embed_dim), ("num_heads", num_heads)):
            check_size(self, name, size)
        if embed_dim % num_heads:
            raise ConfigError(
                "building a MultiheadAttention", expected="embed_dim to be a multiple of num_heads",
                got=f"{embed_dim} and {num_heads}", hint=f"embed_dim={embed_dim // num_heads * num_heads or num_heads}",
            )  # fmt: skip
        probability("building a MultiheadAttention", dropout)
        options: dict[str, Any] = {"dropout": dropout, "bias": bias, "kdim": kdim, "vdim": vdim}
        super().__init__(embed_dim, num_heads, batch_first=True, device=device, dtype=dtype, **options)

    def forward(  # type: ignore[override]
        self,
        queries: Tensor,
        keys: Tensor | None = None,
        values: Tensor | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return what each query gathers [B, T, E], and the weights [B, heads, T, S] where they are asked for."""
        alone = keys is None
        keys = queries if keys is None else keys
        values = keys if values is None else values
        self._check(queries, keys, values)
        batch, count, steps = queries.shape[0], queries.shape[1], keys.shape[1]
        visible = None if mask is None else checked_mask(mask, torch.Size((batch, count, steps)))
        if lengths is not None:
            lengths = check_lengths(lengths, batch, steps).to(keys.device)
            keys, values = zero_padding(keys, lengths), zero_padding(values, lengths)
            queries = keys if alone else queries
            real = length_mask(lengths, steps)[:, None]
            visible = real if visible is None else visible & real
        if causal:
            before = torch.ones(count, steps, dtype=torch.bool, device=keys.device).tril()
            visible = before if visible is None else visible & before
        if visible is not None and visible.dim() == 3:
            visible = visible[:, None]
        q, k, v = (self._heads(each) for each in self._projected(queries, keys, values))
        weights: Tensor | None = None
        dropped = self.dropout if self.training else 0.0
        if need_weights:
            seen = torch.ones(count, steps, dtype=torch.bool, device=keys.device) if visible is None else visible
            scores = q @ k.transpose(2, 3) * self.head_dim**-0.5
            weights = found = softmax(scores, seen.expand(scores.shape))
            y = F.dropout(found, dropped) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, visible, dropped)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        return (zero_padding(y, lengths) if alone and lengths is not None else y), weights

    def _projected(self, queries: Tensor, keys: Tensor, values: Tensor) -> list[Tensor]:
        weights = (
            self.in_proj_weight.chunk(3)
            if self.in_proj_weight is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return [F.linear(x, w, b) for x, w, b in zip((queries, keys, values), weights, biases, strict=True)]

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _check(self, queries: Tensor, keys: Tensor, values: Tensor) -> None:
        def check(name: str, given: Tensor, axes: str, width: int) -> None:
            hint = "embed_dim, kdim and vdim are the widths of queries, keys and values"
            doing, dtype = "attending with several heads", self.out_proj.weight.dtype
            check_input(given, axes, width, dtype, doing=doing, name=name, hint=hint)

        check("queries", queries, "B, T", self.embed_dim)
        check("keys", keys, f"{len(queries)}, S", self.kdim)
        check("values, one for each key,", values, f"{len(queries)}, {keys.shape[1]}", self.vdim)


class ExternalAttention(nn.Module):
    """Attend to two learned memories instead of a sequence: `y = attention(x, lengths=lengths)`, [B, T, D] each.

        A = x M_kᵀ        A = softmax over the steps        A = A / Σ over the memory        y = A M_v

    M_k and M_v are [`memory_size`, D]. `lengths` [B]: only real steps are in the softmax, padding gets 0.
    `causal`: the softmax at step t runs over steps 0..t only, so that y_t depends on nothing later.

    Source: Guo et al. 2021 (2105.02358), equations 5 and 6. Deviations: the published form lets every step see all
    others, `causal` is ours; the linear layers around it are left to the stack.
    """

    def __init__(self, size: int, memory_size: int = 64, *, causal: bool = False) -> None:
        super().__init__()
        self.size, self.causal = check_size(self, "size", size), causal
        check_size(self, "memory_size", memory_size)
        self.keys = nn.Linear(size, memory_size, bias=False)
        self.values = nn.Linear(memory_size, size, bias=False)

    def forward(self, x: Tensor, *, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Return what each step gathers from the memories, [B, T, D]."""
        dtype, doing = self.keys.weight.dtype, "attending to memories"
        check_input(x, "B, T", self.size, dtype, doing=doing, name="x", hint="size is the width of a step")
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        if lengths is not None:
            lengths = check_lengths(lengths, *x.shape[:2]).to(x.device)
            x, real = zero_padding(x, lengths), length_mask(lengths, x.shape[1])
        scores: Tensor = self.keys(x)
        # In logarithms: over many steps, or beside an outlier, every share of a step may round to nothing.
        if self.causal:  # padding lies behind every real step, where none of them looks
            shares = scores - torch.logcumsumexp(scores, 1)
        else:
            hidden = ~real[..., None] & real.any(1)[:, None, None]
            shares = scores - scores.masked_fill(hidden, float("-inf")).logsumexp(1, keepdim=True)
        y: Tensor = self.values(torch.where(real[..., None], F.softmax(shares, 2), 0.0))
        return y
