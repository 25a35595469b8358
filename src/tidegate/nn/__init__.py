"""Recurrent layers, and attention beside them."""

from tidegate.nn.attention import Attention
from tidegate.nn.dropin import GRU, LSTM, RNN
from tidegate.nn.explain import Explanation, explain
from tidegate.nn.multihead import ExternalAttention, MultiheadAttention
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.stream import Stream

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Attention",
    "Explanation",
    "ExternalAttention",
    "MultiheadAttention",
    "Recurrent",
    "Stream",
    "explain",
]
