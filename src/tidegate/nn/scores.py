"""How well a query and a key agree: one number for each pair, before any softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.errors import ConfigError, ShapeError
from tidegate.registry import Registry

SCORES: Registry[type[Score]] = Registry("attention score")


class Score(nn.Module):
    """`forward(queries [B, T, Q], seen) -> [B, T, S]`, with `seen = self.keys(keys [B, S, K])` computed once."""

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:  # noqa: ARG002
        super().__init__()

    def keys(self, keys: Tensor) -> Tensor:
        """Return what of the keys every query needs."""
        return keys

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define forward(queries, seen)")


@SCORES.add("additive")
class Additive(Score):
    """`e_ti = tanh(W_e [h_t, h_i] + b_e)`, W_e [1, Q+K]: the query's and the key's part added before the tanh.

    Bahdanau's score with a single unit and no v; of a form that tutorials have, and no paper of its own.
    """

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__(query_size, key_size, hidden_size)
        self.query = nn.Linear(query_size, 1)
        self.key = nn.Linear(key_size, 1, bias=False)

    def keys(self, keys: Tensor) -> Tensor:
        projected: Tensor = self.key(keys)
        return projected

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        return torch.tanh(self.query(queries) + seen.transpose(1, 2))


@SCORES.add("bahdanau")
class Bahdanau(Score):
    """`e_ti = vᵀ tanh(W h_t + U h_i + b)`, v [A] with A = `hidden_size`.

    Source: Bahdanau, Cho & Bengio 2015 (1409.0473), section A.1.2. Deviation: a bias b, as most programs have it.
    """

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__(query_size, key_size, hidden_size)
        self.query = nn.Linear(query_size, hidden_size)
        self.key = nn.Linear(key_size, hidden_size, bias=False)
        self.v = nn.Linear(hidden_size, 1, bias=False)

    def keys(self, keys: Tensor) -> Tensor:
        projected: Tensor = self.key(keys)
        return projected

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        scores: Tensor = self.v(torch.tanh(self.query(queries)[:, :, None] + seen[:, None]))
        return scores[..., 0]


@SCORES.add("concat")
class Concat(Bahdanau):
    """`vᵀ tanh(W_a [h_t, h_i])` (Luong, Pham & Manning 2015, equation 8): Bahdanau's, without a bias."""

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__(query_size, key_size, hidden_size)
        self.query = nn.Linear(query_size, hidden_size, bias=False)


@SCORES.add("dot")
class Dot(Score):
    """`h_tᵀ h_i` (Luong et al. 2015, equation 8); queries as wide as keys."""

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__(query_size, key_size, hidden_size)
        if query_size != key_size:
            raise ConfigError(
                "building a dot attention",
                expected="queries as wide as keys",
                got=f"query_size={query_size}, key_size={key_size}",
                hint="score='general', which has a matrix between them",
            )

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        return queries @ seen.transpose(1, 2)


@SCORES.add("scaled_dot")
class ScaledDot(Dot):
    """`h_tᵀ h_i / √K` (Vaswani et al. 2017, equation 1)."""

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        return super().forward(queries, seen) * seen.shape[-1] ** -0.5


@SCORES.add("general")
class General(Score):
    """`h_tᵀ W h_i` (Luong et al. 2015, equation 8)."""

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        super().__init__(query_size, key_size, hidden_size)
        self.weight = nn.Linear(key_size, query_size, bias=False)

    def keys(self, keys: Tensor) -> Tensor:
        projected: Tensor = self.weight(keys)
        return projected

    def forward(self, queries: Tensor, seen: Tensor) -> Tensor:
        return queries @ seen.transpose(1, 2)


class Place(nn.Module):
    """Where in a sequence of length S each query looks, a real number `p = S σ(vᵀ tanh(W h_t))`.

    Source: Luong et al. 2015, equation 9.
    """

    def __init__(self, query_size: int, hidden_size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(query_size, hidden_size, bias=False)
        self.outer = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, queries: Tensor, lengths: Tensor) -> Tensor:
        """Return [B, T] places for `queries` [B, T, Q] in sequences of `lengths` [B]."""
        share = torch.sigmoid(self.outer(torch.tanh(self.inner(queries))))[..., 0]
        return share.float() * lengths[:, None]


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax of `scores` [..., S] where `mask` holds, exactly 0 elsewhere; all 0 where it holds nowhere."""
    any_at_all = mask.any(-1, keepdim=True)
    # A row without anything to look at takes equal scores, which have a derivative, and is emptied afterwards.
    kept = torch.where(any_at_all, scores.masked_fill(~mask, float("-inf")), torch.zeros_like(scores))
    return torch.where(mask, F.softmax(kept, -1), 0.0)


def checked_mask(mask: Tensor, shape: torch.Size) -> Tensor:
    """Return `mask`, or raise `ShapeError` unless it is booleans [B, T, S] or [T, S]; `shape` is [B, T, S]."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape not in (shape, shape[1:]):
        got = f"{mask.dtype}, shape {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ShapeError(
            "attending", expected=f"mask of booleans, a tensor {list(shape)} or {list(shape[1:])}", got=got,
            hint="true where a query may look",
        )  # fmt: skip
    return mask
