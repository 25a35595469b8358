"""Recurrent layers."""

from tidegate.nn.dropin import GRU, LSTM, RNN
from tidegate.nn.explain import Explanation, explain
from tidegate.nn.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Explanation", "Recurrent", "explain"]
