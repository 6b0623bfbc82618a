"""Which answers of a teacher are worth learning: readable, in one script, not in loops, not from what is measured.

Each filter says in words why a text is dropped, or None. R1's own data were filtered so (arXiv 2501.12948, 2.3.3:
mixed languages, long paragraphs and code blocks out; DeepSeekMath and R1 v2, B.3: no 10 words shared with what is
measured).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable

from smallpress.corpus.grams import N_WORDS, grams, words

TAGS = ("think", "answer")


def unreadable(text: str) -> str | None:
    """Empty, with broken characters, or with a tag that is opened and not closed.

    >>> unreadable("<think> 2 + 2"), unreadable("4"), unreadable(" ")
    ('a tag is not closed', None, 'empty')
    """
    if not text.strip():
        return "empty"
    if any(char == "\ufffd" or (unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\r\t") for char in text):
        return "broken characters"
    if any(text.count(f"<{tag}>") > text.count(f"</{tag}>") for tag in TAGS):
        return "a tag is not closed"
    return None


def repetitive(text: str, most: float, n: int = 4) -> str | None:
    """More than `most` of its runs of n words are repeats of an earlier one.

    >>> repetitive("so it is " * 20, most=0.5), repetitive("one two three four five six", most=0.5)
    ('repeats itself', None)
    """
    found = list(grams(words(text), n))
    return "repeats itself" if found and 1 - len(set(found)) / len(found) > most else None


def mixed_scripts(text: str, most: float) -> str | None:
    """More than `most` of its letters are of another script than most are; Chinese and Japanese count as one.

    >>> mixed_scripts("the sum is \u5341\u4e8c\u4e2a\u82f9\u679c", most=0.05), mixed_scripts("alpha \u03b1", most=0.2)
    ('mixes scripts', None)
    """
    scripts = Counter(_script(char) for char in text if char.isalpha())
    total = scripts.total()
    return "mixes scripts" if total and 1 - scripts.most_common(1)[0][1] / total > most else None


def _script(char: str) -> str:
    if char.isascii():
        return "LATIN"
    name = unicodedata.name(char, "OTHER").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name


class Measured:
    """Texts that are measured on: `shares` finds those that have `n` words in a row with one of them.

    >>> Measured(["one two three four"], n=3).shares("zero one, two three!")
    'shares 3 words in a row with what is measured'
    """

    def __init__(self, texts: Iterable[str], n: int = N_WORDS):
        self.n = n
        self.grams = {gram for text in texts for gram in grams(words(text), n)}

    def shares(self, text: str) -> str | None:
        if self.grams and any(gram in self.grams for gram in grams(words(text), self.n)):
            return f"shares {self.n} words in a row with what is measured"
        return None
