"""An LSTM and a GRU read a surname letter by letter; from the last hidden state: which of 18 languages is it?"""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import numbered, padded
from _training import fit
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

import tidegate as tg


class Surnames(nn.Module):
    def __init__(self, layer: type[tg.nn.LSTM] | type[tg.nn.GRU], letters: int, languages: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, 32)
        self.recurrent = layer(32, 128, batch_first=True)
        self.output = nn.Linear(128, languages)

    def forward(self, letters: Tensor, lengths: Tensor) -> Tensor:
        _, state = self.recurrent(self.embedding(letters), lengths=lengths)
        h = state[0] if isinstance(state, tuple) else state
        return self.output(h[-1])


def main(data: Path, epochs: int = 8, share: float = 1.0) -> dict[str, float]:
    """Return balanced accuracies on a fifth of the names; `data` is a folder with a file of names a language.

    Half of the names are Russian, 73 are Vietnamese: languages weigh in the loss by the root of how rare they are.
    """
    files = sorted(data.glob("*.txt"))
    each = [sorted(set(file.read_text(encoding="utf-8").split("\n")) - {""}) for file in files]
    names = [(name, language) for language, found in enumerate(each) for name in found]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
    names = [names[place] for place in order[: int(share * len(names))].tolist()]
    cut = len(names) * 4 // 5
    numbers = numbered(name for name, _ in names[:cut])
    letters, lengths = padded([name for name, _ in names], numbers)
    languages = torch.tensor([language for _, language in names])
    weight = torch.bincount(languages[:cut], minlength=len(files)).clamp(min=1).float() ** -0.5
    figures = {}
    for layer in (tg.nn.LSTM, tg.nn.GRU):
        print(layer.__name__)
        torch.manual_seed(0)
        model = Surnames(layer, len(numbers), len(files))

        def loss(rows: Tensor, model: nn.Module = model) -> Tensor:
            return F.cross_entropy(model(letters[rows], lengths[rows]), languages[rows], weight)

        fit(model, loss, cut, epochs=epochs)
        with torch.no_grad():
            found = model(letters[cut:], lengths[cut:]).argmax(-1)
        figures[layer.__name__] = balanced_accuracy_score(languages[cut:], found)
        accuracy = float((found == languages[cut:]).float().mean())
        print(f"  accuracy {accuracy:.3f}, mean over the languages {figures[layer.__name__]:.3f}")
    return figures


if __name__ == "__main__":
    typer.run(main)
