"""Which answers are worth learning: readable, in one script, not in loops, not from what is measured; and which pairs.

Each filter says in words why a text is dropped, or None. R1's own data were filtered so (arXiv 2501.12948, 2.3.3:
mixed languages, long paragraphs and code blocks out; DeepSeekMath and R1 v2, B.3: no 10 words shared with what is
measured).
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

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


def long_paragraph(text: str, most: int) -> str | None:
    """A paragraph of more than `most` words; an empty line ends one. 0: any length.

    >>> long_paragraph("one two three\\n\\nfour", most=2), long_paragraph("one two\\n\\nthree four", most=2)
    ('a long paragraph', None)
    """
    return "a long paragraph" if most and any(len(words(part)) > most for part in re.split(r"\n\s*\n", text)) else None


def code_block(text: str) -> str | None:
    """
    >>> code_block("So: ```python"), code_block("the name `x`")
    ('a code block', None)
    """
    return "a code block" if "```" in text else None


@dataclass(frozen=True, slots=True)
class Readable:
    """What a text must be for a person to read it easily; the least or most that each filter takes."""

    repeated: float = 0.3
    other_scripts: float = 0.05
    paragraph_words: int = 0  # 0: any
    code_blocks: bool = True  # allowed

    def fault(self, text: str) -> str | None:
        """Why it is not, by the first filter that says so.

        >>> Readable(paragraph_words=3).fault("one two three four")
        'a long paragraph'
        """
        return (
            unreadable(text)
            or repetitive(text, self.repeated)
            or mixed_scripts(text, self.other_scripts)
            or long_paragraph(text, self.paragraph_words)
            or (None if self.code_blocks else code_block(text))
        )


R1_READABLE = Readable(paragraph_words=150, code_blocks=False)
"""R1 dropped mixed languages, long paragraphs and code blocks; how long is long the paper does not say."""


def unlike_lengths(one: str, other: str, most: float) -> str | None:
    """One is over `most` times as long as the other: what is learned of such a pair is length.

    >>> unlike_lengths("yes", "no, never at all", most=2), unlike_lengths("yes", "no", most=2)
    ('one answer is over 2 times as long', None)
    """
    short, long = sorted((len(one), len(other)))
    return f"one answer is over {most:g} times as long" if long > most * max(1, short) else None


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
