"""From one sequence to another: an encoder, a bridge of its last state, a decoder that attends to its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tidegate.cells.base import Cell, State
from tidegate.cells.options import check_size, is_number, probability
from tidegate.errors import ConfigError, ShapeError
from tidegate.modes import modes_kept
from tidegate.nn.beam import Found, Penalties, beam_search
from tidegate.nn.decode import GREEDY, Draw, Written, write
from tidegate.nn.decoder import Decoder, Decoding
from tidegate.nn.embedding import Embedding
from tidegate.nn.inputs import check_batch_first, check_parts, check_range, check_tokens, check_vectors
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.states import StackState, join, part, tensors_of
from tidegate.registry import Registry
from tidegate.shapes import check_lengths, zero_padding

SCHEDULES: Registry[Callable[[float], Callable[[int], float]]] = Registry("scheduled sampling")
"""How often the truth is read: a number for the pace gives the probability at every training step."""


def _pace(name: str, pace: float, fits: Callable[[float], bool], expected: str) -> None:
    if not is_number(pace) or not fits(pace):
        raise ConfigError(
            f"building the {name} schedule of scheduled sampling", expected=f"a pace {expected}", got=repr(pace),
            hint="linear: steps until 0; exponential: 0.999; inverse_sigmoid: 1000",
        )  # fmt: skip


@SCHEDULES.add("linear")
def linear(pace: float) -> Callable[[int], float]:
    """`ε_i = max(0, 1 − i/pace)`: Bengio et al. 2015, section 2.4, with ε = 0, k = 1 and c = 1/pace."""
    _pace("linear", pace, lambda pace: pace > 0, "above 0, in steps")
    return lambda step: max(0.0, 1 - step / pace)


@SCHEDULES.add("exponential")
def exponential(pace: float) -> Callable[[int], float]:
    """`ε_i = pace^i`, with a pace below 1."""
    _pace("exponential", pace, lambda pace: 0 < pace < 1, "between 0 and 1")
    return lambda step: pace**step


@SCHEDULES.add("inverse_sigmoid")
def inverse_sigmoid(pace: float) -> Callable[[int], float]:
    """`ε_i = pace/(pace + exp(i/pace))`, with a pace of at least 1."""
    _pace("inverse_sigmoid", pace, lambda pace: pace >= 1, "of at least 1")
    return lambda step: pace / (pace + math.exp(min(step / pace, 700.0)))


class Bridge(nn.Module):
    """The decoder's first state from the encoder's last: `h_l = tanh(W_l [h→, h←] + b_l)`, for each layer l.

    Layer l reads the encoder's layer l, or its last where it has fewer, both directions. Where all cells have the
    states h and c, c is made alike, without the tanh; every other state is the cell's own initial one.
    """

    def __init__(self, encoder: Recurrent, decoder: Recurrent) -> None:
        super().__init__()
        check_parts("building a Bridge", encoder=(encoder, Recurrent), decoder=(decoder, Recurrent))
        self.maps = nn.ModuleList()
        for layer, cell in enumerate(_cells(decoder)):
            read = _cells(encoder)[_cells_read(encoder, layer)]
            names = ("h", "c") if all(c.states == ("h", "c") for c in (cell, *read)) else cell.states[:1]
            sizes = [sum(c.state_sizes[place] for c in read) for place, _ in enumerate(names)]
            widths = cell.state_sizes[: len(names)]
            each = [nn.Linear(size, width) for size, width in zip(sizes, widths, strict=True)]
            self.maps.append(nn.ModuleDict(dict(zip(names, each, strict=True))))

    def forward(self, encoder: Recurrent, decoder: Recurrent, state: StackState) -> StackState:
        """Return the decoder's first state from the encoder's `state` after each row's last real step."""
        cells, like = _cells(encoder), _first(state)
        parts = part(cells, state, like.new_empty(like.shape[-2], 1))
        given = [cell.unpack(each) for cell, each in zip(cells, parts, strict=True) if each is not None]
        made: list[State] = []
        for layer, (cell, maps) in enumerate(zip(_cells(decoder), self.maps, strict=True)):
            read = given[_cells_read(encoder, layer)]
            states = list(cell.unpack(cell.initial_state(like.shape[-2])))
            for place, (name, mapped) in enumerate(cast(nn.ModuleDict, maps).items()):
                new = mapped(torch.cat([each[place] for each in read], -1))
                states[place] = new if name == "c" else torch.tanh(new)
            made.append(cell.pack(tuple(states)))
        return join(_cells(decoder), made)


class Seq2Seq(nn.Module):
    """Map one sequence to another of any length: `logits, weights = model(source, target, lengths=…)`.

    - `encoder`: a `Recurrent`, in both directions for best results. `decoder`: a `Decoder`; its attention's keys, if it
      has one, are the encoder's outputs.
    - `begin` and `end`: the tokens that the decoder reads first, and that ends what it writes.
    - `source_tokens`: how many there are where sources are tokens [B, S], which are embedded `encoder.input_size` wide;
      None where they are vectors [B, S, I].
    - `dropout` on the source's embeddings, in training; `embedding_dropout` of whole tokens of the source.

    `target` [B, T] holds tokens, each row's last real one `end`; the decoder reads `begin` and then the target, a step
    later. `lengths` and `target_lengths` [B] say how many steps of each row are real; `teacher` is `Decoder`'s.

    `write` and `search` give what the model gives in evaluation, whatever mode it is in. Raises `ConfigError` for parts
    that do not fit, `ShapeError` for sources and targets that do not.

    Source: Sutskever, Vinyals & Le 2014 (1409.3215); Bahdanau, Cho & Bengio 2015 (1409.0473); with attention and
    output as in Luong et al. 2015. Deviation: the source is not reversed.
    """

    def __init__(
        self,
        encoder: Recurrent,
        decoder: Decoder,
        *,
        begin: int,
        end: int,
        source_tokens: int | None = None,
        dropout: float = 0.0,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_parts("building a Seq2Seq", encoder=(encoder, Recurrent), decoder=(decoder, Decoder))
        check_batch_first(encoder, "building a Seq2Seq")
        check_vectors(encoder, "building a Seq2Seq")
        attention = decoder.attention
        if attention is not None and (attention.key_size, attention.value_size) != (encoder.output_size,) * 2:
            raise ConfigError(
                "building a Seq2Seq",
                expected=f"an attention with key_size={encoder.output_size}, the encoder's output",
                got=f"key_size={attention.key_size}, value_size={attention.value_size}",
                hint=f"Attention({attention.query_size}, {encoder.output_size})",
            )
        for name, token in (("begin", begin), ("end", end)):
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < decoder.tokens:
                raise ConfigError(
                    "building a Seq2Seq", expected=f"{name} to be one of the decoder's {decoder.tokens} tokens",
                    got=repr(token), hint=f"{name}=0",
                )  # fmt: skip
        self.encoder, self.decoder, self.begin, self.end = encoder, decoder, begin, end
        self.dropout = probability("building a Seq2Seq", dropout)
        self.embedding = None
        if source_tokens is not None:
            self.embedding = Embedding(
                check_size(self, "source_tokens", source_tokens), encoder.input_size, dropout=embedding_dropout
            )
        self.bridge = Bridge(encoder, decoder.layer)
        like = _first(encoder.initial_state(1))
        self.to(like.device, like.dtype)

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        target_lengths: Tensor | Sequence[int] | None = None,
        teacher: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the logits [B, T, tokens] of the target's tokens, and the attention's weights [B, T, S]."""
        check_tokens("reading a target", target, 2)
        before = self.encode(source, lengths)
        if len(target) != len(source):
            raise ShapeError(
                "reading a target", expected=f"a row for each of the {len(source)} sources",
                got=f"shape {list(target.shape)}", hint="target [B, T] of the same B as the source",
            )  # fmt: skip
        read = torch.cat([target.new_full((len(target), 1), self.begin), target[:, :-1]], 1)[:, : target.shape[1]]
        logits, weights, _ = self.decoder(read, before, lengths=target_lengths, teacher=teacher)
        return logits, weights

    def encode(self, source: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Decoding:
        """Return where the decoder begins, with the encoder's outputs to attend to."""
        x = self._embedded(source, lengths)
        outputs, state = self.encoder(x, lengths=lengths)
        first = self.bridge(self.encoder, self.decoder.layer, state)
        attention = self.decoder.attention
        return Decoding(first, memory=None if attention is None else attention.memory(outputs, lengths=lengths))

    def write(
        self,
        source: Tensor,
        *,
        steps: int,
        lengths: Tensor | Sequence[int] | None = None,
        never: Sequence[int] = (),
        draw: Draw = GREEDY,
        generator: torch.Generator | None = None,
    ) -> Written:
        """Write up to `steps` tokens for each source: the likeliest each time, or drawn. See `decode.write`."""
        with torch.no_grad(), modes_kept(self):
            before = self.eval().encode(source, lengths)
            return write(
                self.decoder, self._begins(source), before, steps=steps, end=self.end, never=never, draw=draw,
                generator=generator,
            )  # fmt: skip

    def search(
        self,
        source: Tensor,
        *,
        steps: int,
        width: int = 5,
        lengths: Tensor | Sequence[int] | None = None,
        never: Sequence[int] = (),
        penalties: Penalties | None = None,
        count: int = 1,
    ) -> Found:
        """Return the `count` best targets of each source that a beam finds. See `beam.beam_search`."""
        with torch.no_grad(), modes_kept(self):
            before = self.eval().encode(source, lengths)
            return beam_search(
                self.decoder, self._begins(source), before, width=width, steps=steps, end=self.end,
                never=never, penalties=penalties, count=count,
            )  # fmt: skip

    def _begins(self, source: Tensor) -> Tensor:
        return torch.full((len(source),), self.begin, device=source.device)

    def _embedded(self, source: Tensor, lengths: Tensor | Sequence[int] | None) -> Tensor:
        if self.embedding is None:
            return source
        check_tokens("encoding a source", source, 2)
        if lengths is not None:
            source = zero_padding(source, check_lengths(lengths, *source.shape).to(source.device))
        check_range("encoding a source", source, self.embedding.num_embeddings)
        x = self.embedding(source, checked=True)
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


def _cells(layer: Recurrent) -> list[Cell]:
    return [cell for cell in layer.cells if isinstance(cell, Cell)]


def _cells_read(encoder: Recurrent, layer: int) -> slice:
    """Return which of the encoder's cells the decoder's layer `layer` begins from."""
    first = min(layer, encoder.layers - 1) * encoder.directions
    return slice(first, first + encoder.directions)


def _first(state: StackState) -> Tensor:
    return tensors_of(state)[0]
