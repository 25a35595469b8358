"""BLEU of translations, as sacreBLEU counts it."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU-4, 0 to 100, of one reference each (Papineni et al. 2002; Post 2018, 1804.08771).

    sacreBLEU's signature is `case:mixed|tok:13a|smooth:none`: it equals sacreBLEU's default wherever a run of four
    tokens is right, and is 0 where none is.
    """
    from torchmetrics.functional.text import sacre_bleu_score

    return 100 * float(sacre_bleu_score(list(translations), [[text] for text in references], tokenize="13a"))
