"""Two LSTM(128), each with dropout and batch norm behind it, dense layers and a softmax: which digit is drawn?"""

import torch
import torch.nn.functional as F
import typer
from _reading import digits
from _training import fit
from torch import Tensor, nn

import tidegate as tg


class StackedLSTM(nn.Module):
    def __init__(self, features: int, classes: int, hidden: int = 128, dropout: float = 0.2) -> None:
        super().__init__()
        self.recurrent = tg.nn.Stack(
            tg.nn.LSTM(features, hidden, batch_first=True),
            nn.Dropout(dropout),
            tg.nn.BatchNorm(hidden),
            tg.nn.LSTM(hidden, hidden, batch_first=True),
            nn.Dropout(dropout),
            tg.nn.BatchNorm(hidden),
        )
        self.dense = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, classes))

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.recurrent(x)
        return self.dense(outputs[:, -1]).log_softmax(-1)


def main(epochs: int = 20) -> float:
    """Return the accuracy on images held out."""
    torch.manual_seed(0)
    x, y, x_test, y_test = digits()
    model = StackedLSTM(8, 10)
    fit(model, lambda rows: F.nll_loss(model(x[rows]), y[rows]), len(x), epochs=epochs)
    with torch.no_grad():
        accuracy = float((model(x_test).argmax(-1) == y_test).float().mean())
    print(f"accuracy {accuracy:.3f} on {len(y_test)} images held out")
    return accuracy


if __name__ == "__main__":
    typer.run(main)
