"""Cells: the step equations, each written once. Importing this package fills `CELLS` and `FRAME_CELLS`."""

from tidegate.cells.antisymmetric import AntisymmetricGated, AntisymmetricRNN
from tidegate.cells.base import CELLS, Cell, State
from tidegate.cells.context import SCRN
from tidegate.cells.conv import FRAME_CELLS, ConvGRU, ConvLSTM, ConvLSTMPlain, Convolutional, ConvRNN
from tidegate.cells.coupled import JANET, RAN, LSTMCoupled, MultiplicativeLSTM
from tidegate.cells.diagonal import LRU, RGLRU
from tidegate.cells.elman import Elman
from tidegate.cells.exponential import SLSTM
from tidegate.cells.fast import FastGRNN, FastRNN
from tidegate.cells.gru import GRU, GRUMerge, GRUResetBefore
from tidegate.cells.highway import RHN
from tidegate.cells.independent import IRNN, IndRNN
from tidegate.cells.light import LiGRU, SLiGRU
from tidegate.cells.linear import QRNN, SRU, Linear, MinGRU, MinLSTM
from tidegate.cells.lstm import LSTM
from tidegate.cells.minimal import MGU, STAR, UGRNN, IntersectionRNN
from tidegate.cells.oscillator import LEM, CoRNN, UnICORNN
from tidegate.cells.peephole import LSTMPeephole, LSTMPeepholeFull
from tidegate.cells.searched import MUT1, MUT2, MUT3, NASCell
from tidegate.cells.timeaware import GRUD, CfC, TimeLSTM

__all__ = [
    "CELLS",
    "FRAME_CELLS",
    "GRU",
    "GRUD",
    "IRNN",
    "JANET",
    "LEM",
    "LRU",
    "LSTM",
    "MGU",
    "MUT1",
    "MUT2",
    "MUT3",
    "QRNN",
    "RAN",
    "RGLRU",
    "RHN",
    "SCRN",
    "SLSTM",
    "SRU",
    "STAR",
    "UGRNN",
    "AntisymmetricGated",
    "AntisymmetricRNN",
    "Cell",
    "CfC",
    "CoRNN",
    "ConvGRU",
    "ConvLSTM",
    "ConvLSTMPlain",
    "ConvRNN",
    "Convolutional",
    "Elman",
    "FastGRNN",
    "FastRNN",
    "GRUMerge",
    "GRUResetBefore",
    "IndRNN",
    "IntersectionRNN",
    "LSTMCoupled",
    "LSTMPeephole",
    "LSTMPeepholeFull",
    "LiGRU",
    "Linear",
    "MinGRU",
    "MinLSTM",
    "MultiplicativeLSTM",
    "NASCell",
    "SLiGRU",
    "State",
    "TimeLSTM",
    "UnICORNN",
]
