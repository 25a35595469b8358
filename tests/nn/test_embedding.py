"""Embeddings: torch's own without dropout; with it, whole tokens are dropped, and the mean stays what it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.utils.prune

from tidegate.cells import GRU
from tidegate.errors import ConfigError, ShapeError
from tidegate.nn import Decoder, Embedding, Recurrent

TOKENS = torch.tensor([[1, 2, 1], [0, 2, 2]])


def test_what_hooks_into_an_embedding_runs_in_a_decoder_too() -> None:
    decoder = Decoder(Recurrent(GRU(3, 4)), 5)
    seen: list[torch.Size] = []
    decoder.embedding.register_forward_hook(lambda module, given, out: seen.append(out.shape))
    torch.nn.utils.prune.l1_unstructured(decoder.embedding, "weight", 0.5)
    for _ in range(2):
        decoder(TOKENS)[0].sum().backward()
    assert seen == [(2, 3, 3)] * 2


def test_without_dropout_or_in_evaluation_it_is_torchs() -> None:
    torch.manual_seed(0)
    peer = torch.nn.Embedding(4, 3)
    torch.manual_seed(0)
    ours = Embedding(4, 3, dropout=0.5)
    assert torch.equal(ours.weight, peer.weight)
    assert torch.equal(ours.eval()(TOKENS), peer(TOKENS))
    assert torch.equal(ours(TOKENS.int()), peer(TOKENS))
    assert not torch.equal(ours.train()(TOKENS), peer(TOKENS))
    assert list(ours.state_dict()) == ["weight"]


def test_a_token_is_dropped_wherever_it_occurs_and_so_is_its_gradient() -> None:
    torch.manual_seed(1)
    embedding, tokens = Embedding(50, 3, dropout=0.4), torch.randint(0, 50, (6, 40))
    vectors = embedding(tokens)
    scale = vectors / embedding(tokens.clone()).new_tensor(embedding.weight.detach().numpy())[tokens]
    for token in tokens.unique():
        seen = scale[tokens == token]
        assert torch.allclose(seen, seen[0, 0].expand_as(seen))
        assert float(seen[0, 0].detach()) == pytest.approx(0.0) or float(seen[0, 0].detach()) == pytest.approx(1 / 0.6)
    vectors.sum().backward()
    dropped = (vectors == 0).all(-1)
    assert 0 < int(dropped.sum()) < tokens.numel()
    assert (embedding.weight.grad[tokens[dropped]] == 0).all()
    assert (embedding.weight.grad[tokens[~dropped]] != 0).all()


@torch.no_grad()
def test_its_mean_is_the_embedding() -> None:
    torch.manual_seed(2)
    embedding = Embedding(3, 2, dropout=0.3, dtype=torch.float64)
    mean = torch.stack([embedding(TOKENS) for _ in range(4000)]).mean(0)
    whole = embedding.eval()(TOKENS)
    # Five standard errors of a mask of variance p/(1 − p).
    assert ((mean - whole).abs() <= 5 * whole.abs() * (0.3 / 0.7 / 4000) ** 0.5).all()


def test_what_is_no_token_is_named() -> None:
    embedding = Embedding(4, 3)
    for wrong, says in ((torch.tensor([4]), "tokens 0 to 3; got 4"), (torch.ones(2), r"integers; got shape \[2\]")):
        with pytest.raises(ShapeError, match=says):
            embedding(wrong)
    with pytest.raises(ConfigError, match="building Embedding; expected tokens to be a positive integer"):
        Embedding(0, 3)
    with pytest.raises(ConfigError, match="building Embedding; expected dropout"):
        Embedding(4, 3, dropout=1.5)
