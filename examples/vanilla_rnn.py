"""A recurrent network from its equation, compiled: it reads Shakespeare letter by letter and writes some."""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import text
from _training import fit
from torch import Tensor, nn

import tidegate as tg


class Vanilla(tg.Cell):
    """h = tanh(W x + U h + b)"""

    gates = ("n",)

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        (n,) = self.gate(x, h)
        return torch.tanh(n)


class Letters(nn.Module):
    def __init__(self, letters: int, hidden: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, 32)
        self.recurrent = tg.nn.Recurrent(Vanilla(32, hidden, init="orthogonal"))
        self.output = nn.Linear(hidden, letters)

    def forward(self, letters: Tensor) -> Tensor:
        h, _ = self.recurrent(self.embedding(letters))
        return self.output(h)

    @torch.no_grad()
    def write(self, letter: Tensor, count: int) -> list[int]:
        state, written = None, [int(letter)]
        for _ in range(count):
            y, state = self.recurrent.step(self.embedding(letter), state)
            letter = self.output(y).softmax(-1).multinomial(1)[:, 0]
            written.append(int(letter))
        return written


def main(data: Path, epochs: int = 3, steps: int = 64) -> float:
    """Return the loss on the last tenth of the text, in nats a letter; `data` is the gzip file of the text."""
    torch.manual_seed(0)
    play = text(data)
    symbols = sorted(set(play))
    letters = torch.tensor([symbols.index(letter) for letter in play])
    pieces = letters[: len(letters) // (steps + 1) * (steps + 1)].view(-1, steps + 1)
    train, test = pieces.split([int(0.9 * len(pieces)), len(pieces) - int(0.9 * len(pieces))])
    model = Letters(len(symbols))
    print(tg.explain(model.recurrent, model.embedding(train[:64, :-1])))

    def loss(part: Tensor) -> Tensor:
        return F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())

    fit(model, lambda rows: loss(train[rows]), len(train), epochs=epochs)
    with torch.no_grad():
        nats = float(loss(test))
    print(f"{nats:.3f} nats a letter on the last tenth; it writes:")
    print("".join(symbols[letter] for letter in model.write(letters[:1], 200)))
    return nats


if __name__ == "__main__":
    typer.run(main)
