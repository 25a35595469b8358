"""An encoder, a decoder that attends to it, and a beam: German captions into English, and where it looked."""

from pathlib import Path

import torch
import torch.nn.functional as F
import typer
from _reading import numbered, padded, text
from _training import fit
from torch import Tensor

import tidegate as tg
from tidegate.cells import GRU

SHADES = " ░▒▓█"


def translator(source_words: int, target_words: int, begin: int, end: int, hidden: int = 128) -> tg.nn.Seq2Seq:
    encoder = tg.nn.Recurrent(GRU(64, hidden), bidirectional=True)
    attention = tg.nn.Attention(hidden, encoder.output_size)
    decoder = tg.nn.Decoder(tg.nn.Recurrent(GRU(64, hidden)), target_words, attention=attention, dropout=0.1)
    return tg.nn.Seq2Seq(encoder, decoder, begin=begin, end=end, source_tokens=source_words, dropout=0.1)


def draw(weights: Tensor, source: list[str], target: list[str]) -> str:
    """Return a line for each word that was written, shaded where its attention lay."""
    rows = []
    for word, row in zip(target, weights.tolist(), strict=False):
        cells = (SHADES[round(4 * w)] * len(s) for w, s in zip(row, source, strict=False))
        rows.append(f"{word:>12} │{'│'.join(cells)}│")
    return "\n".join([f"{'':>12}  {' '.join(source)}", *rows])


def main(data: Path, epochs: int = 12, pairs: int = 29000, longest: int = 20, shown: int = 3) -> dict[str, float]:
    """Return the loss of the first and last epoch, how much likelier than greedy's the beam's translations are, and
    how many of the first hundred it gives word for word; `data` is Multi30k's folder.
    """
    torch.manual_seed(0)
    lines = zip(text(data / "train.de.gz").splitlines(), text(data / "train.en.gz").splitlines(), strict=True)
    both = [(de.lower().split(), en.lower().split()) for de, en in lines]
    both = [pair for pair in both if max(map(len, pair)) <= longest][:pairs]
    german, english = [de for de, _ in both], [en for _, en in both]
    from_words, to_words = numbered(german, most=6000), numbered(english, most=6000, first=("<begin>", "<end>"))
    words = list(to_words)
    source, lengths = padded(german, from_words)
    target, target_lengths = padded([[*line, "<end>"] for line in english], to_words)
    model = translator(len(from_words), len(to_words), to_words["<begin>"], to_words["<end>"])

    def loss(rows: Tensor) -> Tensor:
        ends = target_lengths[rows]
        logits, _ = model(source[rows], target[rows], lengths=lengths[rows], target_lengths=ends)
        real = torch.arange(target.shape[1]) < ends[:, None]
        return F.cross_entropy(logits[real], target[rows][real])

    losses = fit(model, loss, len(both), epochs=epochs, batch_size=32)
    asked = {"lengths": lengths[:100], "steps": longest + 1}
    greedy, found = model.write(source[:100], **asked), model.search(source[:100], width=5, **asked)
    gain = float((found.log_probabilities[:, 0] - greedy.log_probabilities).mean())
    written = [[words[token] for token in row[:length]] for row, length in zip(*found.best()[:2], strict=True)]
    right = sum(one == other for one, other in zip(written, english, strict=False))
    for row in range(shown):
        print(draw(found.weights[row, 0], german[row], written[row]))
    print(f"the beam's translations are {gain:.2f} nats likelier than greedy's; {right} are those it was taught")
    return {"first": losses[0], "last": losses[-1], "gain": gain, "right": right}


if __name__ == "__main__":
    typer.run(main)
