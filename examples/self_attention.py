"""A self-attention block over what a GRU gives, added to it and normalised: MNIST's digits, row by row."""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import mnist
from _training import fit
from torch import Tensor, nn

import tidegate as tg


class SelfAttention(nn.Module):
    """y = LN(h + attention(h))"""

    def __init__(self, size: int, heads: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        self.attention = tg.nn.MultiheadAttention(size, heads, dropout=dropout)
        self.norm = nn.LayerNorm(size)

    def forward(self, h: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        mixed, _ = self.attention(h, lengths=lengths)
        return self.norm(h + mixed)


class Rows(nn.Module):
    def __init__(self, features: int, classes: int, size: int = 64) -> None:
        super().__init__()
        self.layers = tg.nn.Stack(tg.nn.GRU(features, size, batch_first=True), SelfAttention(size))
        self.output = nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layers(x)
        return self.output(y.mean(1))


def main(data: Path, epochs: int = 3, images: int = 60000) -> float:
    """Return the accuracy on the test images; `data` is the folder of MNIST's four files."""
    torch.manual_seed(0)
    (x, y), (x_test, y_test) = mnist(data, "train"), mnist(data, "t10k")
    model = Rows(28, 10)
    fit(model, lambda rows: F.cross_entropy(model(x[rows]), y[rows]), min(images, len(x)), epochs=epochs)
    with torch.no_grad():
        accuracy = float((model(x_test).argmax(-1) == y_test).float().mean())
    print(f"accuracy {accuracy:.3f} on {len(y_test)} test images")
    return accuracy


if __name__ == "__main__":
    typer.run(main)
