"""One token after another: embedding, recurrent layers, attention to a memory, a score for every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.base import Cell
from tidegate.cells.options import check_size, is_number, probability
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn.attention import Attention, Memory
from tidegate.nn.embedding import Embedding
from tidegate.nn.inputs import check_batch_first, check_parts, check_range, check_tokens, check_vectors
from tidegate.nn.norms import BatchNorm
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.states import StackState, each_tensor, refilled, tensors_of
from tidegate.shapes import check_lengths, zero_padding


class Decoding(NamedTuple):
    """Where rows of a decoder stand: the layers' state, what the last step gave [B, O], what they attend to.

    `place` is how many tokens were read before, [B] where rows have read unlike many; `Decoding()` is the beginning of
    a decoder without a source.
    """

    state: StackState | None = None
    fed: Tensor | None = None
    memory: Memory | None = None
    place: int | Tensor = 0

    def rows(self, chosen: Tensor) -> Decoding:
        """Return the rows numbered `chosen` [N], each as often as it is named."""
        state = None if self.state is None else each_tensor(lambda s: s.index_select(s.dim() - 2, chosen), self.state)
        memory = None if self.memory is None else Memory(*(each[chosen] for each in self.memory))
        fed = None if self.fed is None else self.fed[chosen]
        place = self.place[chosen] if isinstance(self.place, Tensor) else self.place
        return Decoding(state, fed, memory, place)


class Decoder(nn.Module):
    """Score the token that follows each token: `logits, weights, after = decoder(tokens, before)`.

        s_t = layer([E y_{t−1}, a_{t−1}])      c_t = attention(s_t)      a_t = tanh(W_c [c_t, s_t])      W_o a_t + b_o

    a_{t−1} is read with `input_feeding` only; without attention a_t is s_t, and the decoder a language model.

    - `layer`: a `Recurrent` that runs forward. Its input is the embedding, then a where it is fed.
    - `tokens`: how many there are.
    - `attention`: an `Attention` whose queries are as wide as the layer's output.
    - `dropout`: on embeddings and on what is scored, in training. `embedding_dropout`: whole tokens, see `Embedding`.
    - `tied`: tokens are scored by their embeddings, `W_o = E` (Press & Wolf 2017), which are as wide as the output.

    `tokens` [B, T] are int64 numbers; `lengths` [B], how many of each row are real. `before` is a `Decoding`, or None
    for the cells' initial state. Logits are [B, T, tokens], 0 in the padding, weights [B, T, S] or None.

    With `teacher` below 1, each token after the first is read as given with that probability, else the one that the
    decoder itself finds likeliest is (scheduled sampling; Bengio et al. 2015, 1506.03099, section 2.4, with the most
    likely token for the sampled one).

    Source: Luong, Pham & Manning 2015 (1508.04025), equations 5 and 6 and section 3.3. Without input feeding all
    steps run in one compiled call. Raises `ConfigError` for parts that do not fit, or where steps taken one by one
    would not be those of a whole run in training (`variational_dropout`, `dropconnect`, batch norm), `ShapeError`
    for tokens that are none.
    """

    def __init__(
        self,
        layer: Recurrent,
        tokens: int,
        *,
        attention: Attention | None = None,
        input_feeding: bool = False,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        _check_parts(layer, attention, input_feeding, tied)
        width = layer.output_size
        size = layer.input_size - (width if input_feeding else 0)
        self.layer, self.attention, self.input_feeding = layer, attention, input_feeding
        self.dropout = probability("building a decoder", dropout)
        self.tokens = check_size(self, "tokens", tokens)
        self.embedding = Embedding(tokens, size, dropout=embedding_dropout)
        self.combine = None if attention is None else nn.Linear(attention.value_size + width, width, bias=False)
        self.scores = nn.Linear(width, tokens)
        if tied:
            nn.init.normal_(self.embedding.weight, std=size**-0.5)
            self.scores.weight = self.embedding.weight
        like = tensors_of(layer.initial_state(1))[0]
        self.to(like.device, like.dtype)

    def forward(
        self,
        tokens: Tensor,
        before: Decoding | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        teacher: float = 1.0,
    ) -> tuple[Tensor, Tensor | None, Decoding]:
        """Return the logits, the attention's weights, and where the rows stand after their last real token."""
        check_tokens("decoding", tokens, 2)
        before = check_decoding("decoding", before)
        if lengths is not None:
            lengths = check_lengths(lengths, *tokens.shape).to(tokens.device)
            tokens = zero_padding(tokens, lengths)
        check_range("decoding", tokens, self.tokens)
        if not is_number(teacher) or not 0 <= teacher <= 1:
            raise ConfigError(
                "decoding", expected="teacher to be a probability, 0 to 1", got=repr(teacher), hint="teacher=1.0"
            )
        if self.input_feeding or teacher < 1:
            return self._one_by_one(tokens, before, lengths, teacher)
        outputs, state = self.layer(self._embedded(tokens), before.state, lengths=lengths)
        given, weights = self._attended(outputs, before)
        logits = self.scores(self._dropped(given))
        if lengths is not None:
            logits = zero_padding(logits, lengths)
            weights = None if weights is None else zero_padding(weights, lengths)
        return logits, weights, before._replace(state=state, place=_moved(before.place, tokens, lengths))

    def step(self, tokens: Tensor, before: Decoding) -> tuple[Tensor, Tensor | None, Decoding]:
        """Return the logits [B, tokens] of what follows `tokens` [B], the weights [B, S], and where the rows stand."""
        check_tokens("decoding", tokens, 1)
        check_range("decoding", tokens, self.tokens)
        return self._step(tokens, check_decoding("decoding", before))

    def _step(self, tokens: Tensor, before: Decoding) -> tuple[Tensor, Tensor | None, Decoding]:
        x = self._embedded(tokens)
        if self.input_feeding:
            fed = x.new_zeros(len(x), self.layer.output_size) if before.fed is None else before.fed
            x = torch.cat([x, fed], -1)
        output, state = self.layer.step(x, before.state)
        given, weights = self._attended(output, before)
        after = Decoding(state, given if self.input_feeding else None, before.memory, before.place + 1)
        return self.scores(self._dropped(given)), weights, after

    def _one_by_one(
        self, tokens: Tensor, before: Decoding, lengths: Tensor | None, teacher: float
    ) -> tuple[Tensor, Tensor | None, Decoding]:
        batch, steps = tokens.shape
        self._check_steps_alike()
        logits: list[Tensor] = []
        weights: list[Tensor] = []
        now = before._replace(state=self.layer.initial_state(batch)) if before.state is None else before
        for t in range(steps):
            read = tokens[:, t]
            if t and teacher < 1:
                own = torch.rand(batch, device=tokens.device) >= teacher
                read = torch.where(own, logits[-1].detach().argmax(-1), read)
            scored, weight, after = self._step(read, now)
            if lengths is not None:
                real = lengths > t
                scored = torch.where(real[:, None], scored, 0.0)
                weight = None if weight is None else torch.where(real[:, None], weight, 0.0)
                after = _where(real, after, now)
            logits.append(scored)
            weights += [] if weight is None else [weight]
            now = after
        now = now._replace(place=_moved(before.place, tokens, lengths))
        if not steps:
            given, none = self._attended(self.scores.weight.new_zeros(batch, 0, self.layer.output_size), before)
            return self.scores(given), none, now
        return torch.stack(logits, 1), torch.stack(weights, 1) if weights else None, now

    def _embedded(self, tokens: Tensor) -> Tensor:
        return self._dropped(self.embedding(tokens, checked=True))

    def _attended(self, outputs: Tensor, before: Decoding) -> tuple[Tensor, Tensor | None]:
        """Return what is scored, and the weights."""
        if self.attention is None or self.combine is None:
            return outputs, None
        if before.memory is None:
            raise ShapeError(
                "decoding with attention", expected="a memory in the Decoding", got="none",
                hint="Decoding(state, memory=decoder.attention.memory(keys, lengths=lengths))",
            )  # fmt: skip
        context, weights = self.attention.attend(outputs, before.memory, first=before.place)
        return torch.tanh(self.combine(torch.cat([context, outputs], -1))), weights

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def _check_steps_alike(self) -> None:
        """Raise `ConfigError` where steps one by one are not those of a whole run: masks of one, statistics over it."""
        cells = [cell for cell in self.layer.cells if isinstance(cell, Cell)]
        noise = [("variational_dropout", c.noise.inputs or c.noise.hidden) for c in cells]
        noise += [("dropconnect", c.noise.weights) for c in cells] + [("batch_norm", c.batch_norm) for c in cells]
        batch = [("norm='batch'", isinstance(n, BatchNorm)) for n in self.layer.norms or ()]
        tokens = ("embedding_dropout", self.embedding.dropout)
        asked = [name for name, given in (*noise, *batch, tokens) if given]
        if self.training and asked:
            raise ConfigError(
                "training a decoder one token at a time, as input_feeding and teacher below 1 do",
                expected="a layer whose steps draw and normalise by themselves", got=asked[0],
                hint="recurrent_dropout, zoneout, layer_norm; or input_feeding=False and teacher=1",
            )  # fmt: skip


def check_decoding(doing: str, before: Decoding | None) -> Decoding:
    """Return `before`, the beginning where it is None, or raise `ConfigError` where it is no `Decoding`."""
    before = Decoding() if before is None else before
    check_parts(doing, before=(before, Decoding))
    return before


def _moved(place: int | Tensor, tokens: Tensor, lengths: Tensor | None) -> int | Tensor:
    """Return how many tokens each row has read after `tokens` [B, T], of which `lengths` are real."""
    return place + (tokens.shape[1] if lengths is None else lengths)


def _where(real: Tensor, after: Decoding, before: Decoding) -> Decoding:
    """Return `after` where a row is real; what ended stays as it was, or as it begins."""

    def choose(new: Tensor, old: Tensor | None) -> Tensor:
        return torch.where(real[:, None], new, torch.zeros_like(new) if old is None else old)

    assert after.state is not None
    assert before.state is not None
    pairs = zip(tensors_of(after.state), tensors_of(before.state), strict=True)
    state = refilled(after.state, [choose(*pair) for pair in pairs])
    return after._replace(state=state, fed=None if after.fed is None else choose(after.fed, before.fed))


def _check_parts(layer: Recurrent, attention: Attention | None, input_feeding: bool, tied: bool) -> None:
    doing = "building a decoder"
    check_parts(doing, layer=(layer, Recurrent))
    if attention is not None:
        check_parts(doing, attention=(attention, Attention))
    check_batch_first(layer, doing)
    check_vectors(layer, doing)
    width = layer.output_size
    size = layer.input_size - (width if input_feeding else 0)
    if layer.bidirectional:
        raise ConfigError(
            doing, expected="a layer that runs forward only", got="bidirectional=True", hint="bidirectional=False"
        )
    if size < 1:
        raise ConfigError(
            doing, expected=f"with input_feeding, an input_size above {width}, the layer's output, for the embedding",
            got=f"input_size={layer.input_size}", hint=f"input_size={width + 64}",
        )  # fmt: skip
    if attention is not None and attention.query_size != width:
        raise ConfigError(
            doing, expected=f"an attention with query_size={width}, the layer's output", got=f"{attention.query_size}",
            hint=f"Attention({width}, {attention.key_size})",
        )  # fmt: skip
    if input_feeding and attention is None:
        raise ConfigError(
            doing, expected="an attention, whose result is fed", got="none", hint="attention=Attention(…)"
        )
    if tied and size != width:
        raise ConfigError(
            doing, expected=f"tied=True with embeddings as wide as the layer's output, {width}", got=f"{size}",
            hint="equal input_size and hidden_size, or tied=False",
        )  # fmt: skip
