"""Words in a row, by which a text is found again in another (DeepSeek-R1's rule for its data: 10 of them).

A word is a run of letters or digits without case; a Chinese or Japanese character is a word.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

N_WORDS = 10
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """
    >>> words("3 clips, Tom's 三个")
    ['3', 'clips', 'tom', 's', '三', '个']
    """
    return _WORD.findall(text.casefold())


def grams(found: Sequence[str], n: int = N_WORDS) -> Iterator[bytes]:
    """A digest of every n words in a row."""
    return (gram_of(found[i : i + n]) for i in range(max(0, len(found) - n + 1)))


def gram_of(found: Sequence[str]) -> bytes:
    return blake2b("\0".join(found).encode("utf-8", "surrogatepass"), digest_size=8).digest()
