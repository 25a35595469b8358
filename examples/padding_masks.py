"""A GRU, an LSTM and multi-head attention read messages of all lengths: is it spam? Padding changes nothing."""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import labelled, numbered, padded
from _training import fit
from torch import Tensor, nn

import tidegate as tg

MODULES = {
    "GRU": lambda size: tg.nn.GRU(size, size, batch_first=True),
    "LSTM": lambda size: tg.nn.LSTM(size, size, batch_first=True),
    "multi-head attention": lambda size: tg.nn.MultiheadAttention(size, 4),
}


class Spam(nn.Module):
    def __init__(self, words: int, name: str, size: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, size)
        self.module = MODULES[name](size)
        self.output = nn.Linear(size, 2)

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:
        read, _ = self.module(self.embedding(words), lengths=lengths)
        return self.output(read.sum(1) / lengths[:, None])


def main(data: Path, epochs: int = 4) -> dict[str, float]:
    """Return each module's accuracy on the last quarter of the messages; `data` is the file of messages."""
    messages, labels = labelled(data, label=0)
    cut = len(messages) * 3 // 4
    numbers = numbered(messages[:cut], most=3000)
    words, lengths = padded(messages, numbers)
    spam = torch.tensor([label == "spam" for label in labels]).long()
    figures = {}
    for name in MODULES:
        print(name)
        torch.manual_seed(0)
        model = Spam(len(numbers), name)
        fit(model, lambda i, m=model: F.cross_entropy(m(words[i], lengths[i]), spam[i]), cut, epochs=epochs)
        with torch.no_grad():
            logits = model(words[cut:], lengths[cut:])
            padding = torch.arange(words.shape[1]) >= lengths[cut:, None]
            garbled = words[cut:].masked_fill(padding, len(numbers) - 1)
            assert torch.equal(model(garbled, lengths[cut:]), logits), "padding was read"
        figures[name] = float((logits.argmax(-1) == spam[cut:]).float().mean())
        print(
            f"  accuracy {figures[name]:.3f} on {len(logits)} messages held out, to the bit the same over other padding"
        )
    return figures


if __name__ == "__main__":
    typer.run(main)
