"""Embedding, LSTM, dropout, dense, dropout, dense: does a sentence of a film review speak well of it?"""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import labelled, numbered, padded
from _training import fit
from torch import Tensor, nn

import tidegate as tg


class Sentiment(nn.Module):
    def __init__(self, words: int, hidden: int = 64, dropout: float = 0.5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.lstm = tg.nn.LSTM(hidden, hidden, batch_first=True)
        self.dense = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(hidden, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 1)
        )

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        _, (h, _) = self.lstm(self.embedding(words), lengths=lengths)
        return self.dense(h[-1])[:, 0]


def main(data: Path, epochs: int = 8) -> float:
    """Return the accuracy on the test sentences; `data` is the folder of train.tsv and test.tsv."""
    torch.manual_seed(0)
    sentences, labels = labelled(data / "train.tsv", label=1)
    numbers = numbered(sentences, most=8000)
    words, lengths = padded(sentences, numbers)
    good = torch.tensor([label == "1" for label in labels]).float()
    model = Sentiment(len(numbers))

    def loss(rows: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(words[rows], lengths[rows]), good[rows])

    fit(model, loss, len(words), epochs=epochs)
    sentences, labels = labelled(data / "test.tsv", label=1)
    with torch.no_grad():
        found = model(*padded(sentences, numbers)) > 0
    accuracy = float((found == torch.tensor([label == "1" for label in labels])).float().mean())
    print(f"accuracy {accuracy:.3f} on {len(labels)} test sentences")
    return accuracy


if __name__ == "__main__":
    typer.run(main)
