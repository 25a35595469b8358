"""A character model of Tiny Shakespeare and a translator of Multi30k, trained and scored as a user would.

    python benchmarks/texts.py shakespeare|multi30k [--data DIR] [--out DIR] [--threads 2] [--set NAME=VALUE]

Tiny Shakespeare: the first 90 % of the characters train, the last 10 % validate; nats a character, over the whole of
that part as one stream. Multi30k, German to English: trained on train, chosen on val, scored once on test2016 by
sacreBLEU, greedily and with a beam of 5. Prints figures and seconds, and writes the model and its pages.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

import tidegate as tg
from tidegate.data.text import open_corpus, read_lines


def shakespeare(data: Path, out: Path, options: dict[str, Any]) -> dict[str, float]:
    text = data / "tinyshakespeare" / "input.txt.gz"
    began = time.perf_counter()
    model: Any = tg.fit(str(text), task="generate", valid=0.1, **options)
    seconds = time.perf_counter() - began
    model.save(out / "shakespeare.tg")
    whole = "".join(open_corpus(text).texts())
    held = model.evaluate([whole[int(len(whole) * 0.9) :]])
    print(model.generate("ROMEO:\n", length=700, temperature=0.8, seed=0))
    return {"seconds": seconds, "valid_nats": held["loss"], "bits_per_character": held["bits_per_character"]}


def multi30k(data: Path, out: Path, options: dict[str, Any]) -> dict[str, float]:
    import sacrebleu

    folder = data / "multi30k_de_en"
    files = {part: tuple(str(folder / f"{part}.{side}.gz") for side in ("de", "en")) for part in ("train", "val")}
    began = time.perf_counter()
    translator = tg.Translator(verbose=True, **options).fit(*files["train"], valid=files["val"])
    seconds = time.perf_counter() - began
    model = translator.model_
    model.save(out / "multi30k.tg")
    sources, truths = (read_lines(folder / f"test_2016_flickr.{side}.gz") for side in ("de", "en"))
    figures = {"seconds": seconds, **{f"valid_{k}": v for k, v in model.metrics.items()}}
    for beam in (1, 5):
        written = model.translate(sources, beam=beam)
        figures[f"bleu_beam_{beam}"] = sacrebleu.corpus_bleu(written, [truths]).score
    for source, truth, guess in list(zip(sources, truths, written, strict=True))[:8]:
        print(f"{source}\n  {truth}\n  {guess}")
    model.draw(out / "multi30k_alignment.html", sources[:8])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["shakespeare", "multi30k"])
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="options")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    options = {name: json.loads(value) for name, value in (each.split("=", 1) for each in asked.options)}
    cpu = time.process_time()
    figures = {"shakespeare": shakespeare, "multi30k": multi30k}[asked.task](asked.data, asked.out, options)
    figures["cpu_seconds"] = time.process_time() - cpu
    print(json.dumps({"task": asked.task, "options": options, **figures}))


if __name__ == "__main__":
    main()
