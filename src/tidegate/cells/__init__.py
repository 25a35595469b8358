"""Cells: the step equations, each written once. Importing this package fills `CELLS`."""

from tidegate.cells.base import CELLS, Cell, State
from tidegate.cells.elman import Elman
from tidegate.cells.gru import GRU, GRUMerge, GRUResetBefore
from tidegate.cells.lstm import LSTM

__all__ = ["CELLS", "GRU", "LSTM", "Cell", "Elman", "GRUMerge", "GRUResetBefore", "State"]
