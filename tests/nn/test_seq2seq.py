"""A13: encoder, bridge and decoder for every cell; padding, teacher forcing, and a task that is learnt."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tidegate import nn as tidegate_nn
from tidegate.cells import CELLS, GRU, LSTM
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Attention, Bridge, Decoder, Decoding, Recurrent, Seq2Seq
from tidegate.nn.beam import beam_search
from tidegate.nn.seq2seq import SCHEDULES

BEGIN, END, TOKENS = 0, 1, 6
LENGTHS, TARGET_LENGTHS = torch.tensor([5, 2, 4]), torch.tensor([4, 3, 1])
READS_MORE = {name for name, cell in CELLS.items() if cell.inputs}


def build(cell: str, feeding: bool = False, dtype: torch.dtype = torch.float64) -> Seq2Seq:
    torch.manual_seed(1)
    encoder = Recurrent(CELLS[cell](3, 4), bidirectional=True)
    width = Recurrent(CELLS[cell](3, 4)).output_size
    layer = Recurrent(CELLS[cell](5 + (width if feeding else 0), 4))
    attention = Attention(layer.output_size, encoder.output_size, score="general")
    return Seq2Seq(
        encoder, Decoder(layer, TOKENS, attention=attention, input_feeding=feeding), begin=BEGIN, end=END
    ).to(dtype)


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 5, 3, dtype=torch.float64, generator=generator), torch.randint(
        2, TOKENS, (3, 4), generator=generator
    )


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize("name", [name for name in CELLS if name not in READS_MORE])
def test_every_cell_encodes_and_decodes(name: str, feeding: bool) -> None:
    model, (source, target) = build(name, feeding), inputs()
    results = []
    for filled, token in ((0.0, 2), (float("nan"), 5)):
        x, y = source.clone(), target.clone()
        for row in range(3):
            x[row, LENGTHS[row] :] = filled
            y[row, TARGET_LENGTHS[row] :] = token
        x.requires_grad_()
        logits, weights = model(x, y, lengths=LENGTHS, target_lengths=TARGET_LENGTHS)
        assert weights is not None
        gradients = torch.autograd.grad(logits.sin().sum(), [x, *model.parameters()], allow_unused=True)
        results.append([logits, weights, *(g for g in gradients if g is not None)])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results, strict=True))
    logits, weights = results[0][:2]
    model.encoder.backend = model.decoder.layer.backend = "reference"
    for row in range(3):
        assert (logits[row, TARGET_LENGTHS[row] :] == 0).all()
        assert (weights[row, :, LENGTHS[row] :] == 0).all()
        alone, _ = model(source[row : row + 1, : LENGTHS[row]], target[row : row + 1, : TARGET_LENGTHS[row]])
        torch.testing.assert_close(alone[0], logits[row, : TARGET_LENGTHS[row]])
    assert results[0][2][0].abs().max() > 0


@pytest.mark.parametrize("name", ["gru", "lstm", "slstm"])
def test_one_step_after_another_is_all_at_once(name: str) -> None:
    model, (source, target) = build(name), inputs()
    model.eval()
    before = model.encode(source, LENGTHS)
    read = torch.cat([torch.full((3, 1), BEGIN), target[:, :-1]], 1)
    logits, weights, after = model.decoder(read, before)
    now = before
    for t in range(4):
        step, weight, now = model.decoder.step(read[:, t], now)
        torch.testing.assert_close(step, logits[:, t])
        torch.testing.assert_close(weight, weights[:, t])
    torch.testing.assert_close(now.state, after.state)
    one, _, two = (None, *model.decoder(read[:, :2], before)[1:])
    torch.testing.assert_close(model.decoder(read[:, 2:], two)[0], logits[:, 2:])
    assert one is None
    lengths = torch.tensor([4, 0, 2])
    whole, stepwise = (
        model.decoder(read, before, lengths=lengths, teacher=teacher)[2].state for teacher in (1.0, 1 - 1e-12)
    )
    torch.testing.assert_close(whole, stepwise)


def test_input_feeding_is_the_papers() -> None:
    """Luong et al. 2015, section 3.3: what was scored is read with the next embedding."""
    model, (source, target) = build("gru", feeding=True), inputs()
    decoder, before = model.decoder, model.encode(source, LENGTHS)
    logits, _, _ = decoder(target, before)
    assert decoder.combine is not None
    assert decoder.attention is not None
    fed, h, cell = torch.zeros(3, 4, dtype=torch.float64), before.state[0], decoder.layer.cells[0]  # type: ignore[index]
    for t in range(4):
        h = cell(torch.cat([decoder.embedding(target[:, t]), fed], -1), h)[0]
        context, _ = decoder.attention.attend(h, before.memory)  # type: ignore[arg-type]
        fed = torch.tanh(decoder.combine(torch.cat([context, h], -1)))
        torch.testing.assert_close(logits[:, t], decoder.scores(fed))


def test_the_bridge_is_its_equation() -> None:
    encoder, decoder = Recurrent(LSTM(3, 4), bidirectional=True, layers=2), Recurrent(LSTM(3, 5), layers=3)
    bridge = Bridge(encoder, decoder)
    h, c = torch.randn(4, 2, 4), torch.randn(4, 2, 4)
    new_h, new_c = bridge(encoder, decoder, (h, c))
    for layer, first in enumerate((0, 2, 2)):
        maps = bridge.maps[layer]
        torch.testing.assert_close(new_h[layer], torch.tanh(maps["h"](torch.cat([h[first], h[first + 1]], -1))))
        torch.testing.assert_close(new_c[layer], maps["c"](torch.cat([c[first], c[first + 1]], -1)))
    mixed = Bridge(Recurrent(GRU(3, 4)), decoder)
    new_h, new_c = mixed(Recurrent(GRU(3, 4)), decoder, h[:1])
    torch.testing.assert_close(new_h[2], torch.tanh(mixed.maps[2]["h"](h[0])))
    assert (new_c == 0).all()


def test_without_a_teacher_the_decoder_reads_what_it_wrote() -> None:
    model, (source, target) = build("gru"), inputs()
    model.eval()
    logits, _ = model(source, target, teacher=0.0)
    own = logits.argmax(-1)
    torch.testing.assert_close(model(source, torch.cat([own[:, :3], target[:, 3:]], 1))[0], logits)
    torch.manual_seed(0)
    half, _ = model(source, target, teacher=0.5)
    assert not torch.allclose(half, logits)
    torch.testing.assert_close(model(source, target, teacher=1.0)[0][:, 0], logits[:, 0])


def test_schedules_are_the_papers() -> None:
    """Bengio et al. 2015, section 2.4."""
    assert SCHEDULES["linear"](10)(4) == pytest.approx(0.6)
    assert SCHEDULES["linear"](10)(40) == 0
    assert SCHEDULES["exponential"](0.9)(3) == pytest.approx(0.729)
    assert SCHEDULES["inverse_sigmoid"](5)(10) == pytest.approx(5 / (5 + math.exp(2)))
    assert SCHEDULES["inverse_sigmoid"](1)(10**6) == pytest.approx(0)


def test_sources_may_be_tokens() -> None:
    torch.manual_seed(0)
    encoder = Recurrent(GRU(6, 8))
    decoder = Decoder(Recurrent(GRU(6, 8)), TOKENS, attention=Attention(8, 8))
    model = Seq2Seq(encoder, decoder, begin=BEGIN, end=END, source_tokens=9)
    source = torch.tensor([[3, 4, 8], [5, -1, 99]])
    logits, _ = model(source, torch.tensor([[2, END], [3, END]]), lengths=[3, 1])
    assert logits.shape == (2, 2, TOKENS)
    with pytest.raises(ShapeError, match=r"tokens \[B, T\], integers; got shape \[2, 3, 6\]"):
        model(torch.zeros(2, 3, 6), torch.tensor([[2, END], [3, END]]))
    with pytest.raises(ConfigError, match="an attention with key_size=8, the encoder's output; got key_size=5"):
        Seq2Seq(encoder, Decoder(Recurrent(GRU(6, 8)), TOKENS, attention=Attention(8, 5)), begin=BEGIN, end=END)


@pytest.mark.parametrize("window", [None, 1])
@pytest.mark.parametrize("place", ["monotonic", "predicted"])
def test_local_attention_looks_at_the_same_place_step_by_step(window: int | None, place: str) -> None:
    torch.manual_seed(0)
    attention = Attention(4, 5, score="general", window=window, place=place)
    decoder = Decoder(Recurrent(LSTM(3, 4)), TOKENS, attention=attention).eval()
    memory, tokens = attention.memory(torch.randn(2, 7, 5)), torch.randint(0, TOKENS, (2, 6))
    whole, _, after = decoder(tokens, Decoding(memory=memory))
    now, steps = Decoding(memory=memory), []
    for token in tokens.unbind(1):
        logits, _, now = decoder.step(token, now)
        steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), whole)
    assert after.place == now.place == 6
    _, _, half = decoder(tokens[:, :4], Decoding(memory=memory))
    torch.testing.assert_close(decoder(tokens[:, 4:], half)[0], whole[:, 4:])
    torch.testing.assert_close(decoder(tokens, Decoding(memory=memory), teacher=1 - 1e-12)[0], whole)


@pytest.mark.parametrize("feeding", [False, True])
def test_local_attention_goes_on_from_each_rows_own_place(feeding: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(4, 5, score="general", window=1, place="monotonic")
    decoder = Decoder(Recurrent(GRU(7, 4)), TOKENS, attention=attention, input_feeding=feeding).eval()
    keys, tokens = torch.randn(2, 9, 5), torch.randint(0, TOKENS, (2, 6))
    more, lengths = torch.randint(0, TOKENS, (2, 2)), torch.tensor([3, 6])
    _, _, after = decoder(tokens, Decoding(memory=attention.memory(keys)), lengths=lengths)
    logits, weights, end = decoder(more, after)
    for row, length in enumerate(lengths.tolist()):
        begin = Decoding(memory=attention.memory(keys[row : row + 1]))
        alone = decoder(more[row : row + 1], decoder(tokens[row : row + 1, :length], begin)[2])
        torch.testing.assert_close(logits[row], alone[0][0])
        torch.testing.assert_close(weights[row], alone[1][0])
    assert torch.equal(torch.as_tensor(end.place), lengths + 2)
    turned = decoder(more.flip(0), after.rows(torch.tensor([1, 0])))[0]
    torch.testing.assert_close(turned.flip(0), logits)
    found = beam_search(decoder, more[:, 0], after, width=2, steps=3, end=END)
    single = beam_search(decoder, more[:1, 0], after.rows(torch.tensor([0])), width=2, steps=3, end=END)
    assert torch.equal(
        found.tokens[0, 0, : int(single.lengths[0, 0])], single.tokens[0, 0, : int(single.lengths[0, 0])]
    )


@pytest.mark.parametrize("options", [{"variational_dropout": 0.1}, {"dropconnect": 0.1}, {"batch_norm": 1}])
def test_steps_that_would_not_be_those_of_a_run_are_refused_in_training(options: dict[str, Any]) -> None:
    decoder = Decoder(Recurrent(GRU(3, 4, **options)), TOKENS)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ConfigError, match="a layer whose steps draw and normalise by themselves; got"):
        decoder(tokens, teacher=0.5)
    decoder.eval()(tokens, teacher=0.5)
    with pytest.raises(ConfigError, match="norm='batch'"):
        Decoder(Recurrent(GRU(3, 4), norm="batch"), TOKENS)(tokens, teacher=0.5)


def test_parts_that_do_not_fit_are_told() -> None:
    encoder, decoder = Recurrent(GRU(3, 4)), Decoder(Recurrent(GRU(3, 4)), TOKENS)
    with pytest.raises(ConfigError, match="a layer that is batch first; got batch_first=False"):
        Decoder(tidegate_nn.GRU(3, 4), TOKENS)
    with pytest.raises(ConfigError, match="a layer that is batch first"):
        Seq2Seq(tidegate_nn.GRU(3, 4), decoder, begin=0, end=1)
    with pytest.raises(ConfigError, match=r"layer to be a tidegate\.nn\.recurrent\.Recurrent; got GRU"):
        Decoder(torch.nn.GRU(3, 4), TOKENS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"decoder to be a tidegate\.nn\.decoder\.Decoder; got GRU"):
        Seq2Seq(encoder, GRU(3, 4), begin=0, end=1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="dropout to be a probability, 0 to 1; got 2"):
        Seq2Seq(encoder, decoder, begin=0, end=1, dropout=2)
    with pytest.raises(ConfigError, match="teacher to be a probability"):
        decoder(torch.zeros(1, 2, dtype=torch.int64), teacher=float("nan"))
    for name, pace in (("linear", 0.0), ("exponential", 2.0), ("inverse_sigmoid", 0.5)):
        with pytest.raises(ConfigError, match=f"building the {name} schedule"):
            SCHEDULES[name](pace)
    with pytest.raises(ShapeError, match="expected tokens 0 to 5; got 6"):
        decoder(torch.full((1, 2), 6))
    with pytest.raises(ShapeError, match=r"reading a target; expected tokens \[B, T\]"):
        Seq2Seq(encoder, decoder, begin=0, end=1)(torch.zeros(2, 4, 3), torch.zeros(3).long())


def test_weights_follow_the_layers_dtype() -> None:
    encoder, layer = Recurrent(GRU(3, 4, dtype=torch.float64)), Recurrent(GRU(3, 4, dtype=torch.float64))
    model = Seq2Seq(encoder, Decoder(layer, TOKENS), begin=0, end=1)
    logits, _ = model(torch.zeros(2, 4, 3, dtype=torch.float64), torch.full((2, 3), END))
    assert logits.dtype == torch.float64


def test_it_learns_to_turn_a_sequence_around() -> None:
    torch.manual_seed(0)
    tokens, width = 8, 32
    encoder = Recurrent(GRU(16, width), bidirectional=True)
    decoder = Decoder(Recurrent(GRU(16, width)), tokens, attention=Attention(width, 2 * width))
    model = Seq2Seq(encoder, decoder, begin=BEGIN, end=END, source_tokens=tokens)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def batch(rows: int) -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.randint(2, 6, (rows,))
        source = torch.randint(2, tokens, (rows, 5))
        target = torch.full((rows, 6), END)
        for row, length in enumerate(lengths.tolist()):
            target[row, :length] = source[row, :length].flip(0)
        return source, lengths, target

    for _ in range(250):
        source, lengths, target = batch(64)
        logits, _ = model(source, target, lengths=lengths, target_lengths=lengths + 1)
        real = torch.arange(6) < lengths[:, None] + 1
        loss = F.cross_entropy(logits[real], target[real])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    source, lengths, target = batch(100)
    for written in (
        model.write(source, lengths=lengths, steps=6),
        model.search(source, lengths=lengths, steps=6).best(),
    ):
        right = [
            torch.equal(written.tokens[row, : written.lengths[row]], target[row, : lengths[row]]) for row in range(100)
        ]
        assert sum(right) >= 95


@pytest.mark.parametrize("feeding", [False, True])
def test_no_tokens_have_no_logits_and_no_weights(feeding: bool) -> None:
    model, (source, _) = build("gru", feeding), inputs()
    before = model.encode(source, LENGTHS)
    logits, weights, after = model.decoder(torch.zeros(3, 0, dtype=torch.int64), before)
    assert logits.shape == (3, 0, TOKENS)
    assert weights is not None
    assert weights.shape == (3, 0, 5)
    assert after.place == 0


def test_parts_of_the_wrong_kind_are_told() -> None:
    layer, tokens = Recurrent(GRU(3, 4)), torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"layer to be a tidegate\.nn\.recurrent\.Recurrent; got None"):
        Decoder(None, TOKENS)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"before to be a tidegate\.nn\.decoder\.Decoding; got Tensor\[1, 1, 4\]"):
        Decoder(layer, TOKENS)(tokens, torch.zeros(1, 1, 4))
    with pytest.raises(ConfigError, match="teacher to be a probability, 0 to 1; got 'half'"):
        Decoder(layer, TOKENS)(tokens, teacher="half")
    with pytest.raises(ConfigError, match="begin to be one of the decoder's 6 tokens; got True"):
        Seq2Seq(layer, Decoder(layer, TOKENS), begin=True, end=1)
    with pytest.raises(ConfigError, match=r"encoder to be a tidegate\.nn\.recurrent\.Recurrent"):
        Bridge(GRU(3, 4), layer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a pace above 0, in steps; got 'slow'"):
        SCHEDULES["linear"]("slow")  # type: ignore[arg-type]
