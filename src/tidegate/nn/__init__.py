"""Recurrent layers."""

from tidegate.nn.dropin import GRU, LSTM, RNN
from tidegate.nn.explain import Explanation, explain
from tidegate.nn.recurrent import Recurrent
from tidegate.nn.stream import Stream

__all__ = ["GRU", "LSTM", "RNN", "Explanation", "Recurrent", "Stream", "explain"]
