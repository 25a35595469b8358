"""Recurrent layers, attention beside them, and models that read one sequence and write another."""

from tidegate.nn.adapt import Adapt
from tidegate.nn.attention import Attention
from tidegate.nn.beam import Found, Penalties, beam_search
from tidegate.nn.blocks import Convolution, Stack, TransformerBlock
from tidegate.nn.decode import Draw, Written, write
from tidegate.nn.decoder import Decoder, Decoding
from tidegate.nn.dropin import GRU, LSTM, RNN
from tidegate.nn.embedding import Embedding
from tidegate.nn.explain import Explanation, explain
from tidegate.nn.multihead import ExternalAttention, MultiheadAttention
from tidegate.nn.norms import BatchNorm
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.regularise import Regulariser
from tidegate.nn.seq2seq import Bridge, Seq2Seq
from tidegate.nn.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Adapt",
    "Attention",
    "BatchNorm",
    "Bridge",
    "Convolution",
    "Decoder",
    "Decoding",
    "Draw",
    "Embedding",
    "Explanation",
    "ExternalAttention",
    "Found",
    "MultiheadAttention",
    "Penalties",
    "Recurrent",
    "Regulariser",
    "Seq2Seq",
    "Stack",
    "Stream",
    "TransformerBlock",
    "Written",
    "beam_search",
    "explain",
    "write",
]
