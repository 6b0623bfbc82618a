"""The bytes a token stands for, from the way a vocabulary spells it."""

import re
from functools import cache
from typing import Literal

Spelling = Literal["byte_level", "byte_fallback"]


@cache
def byte_of_letter() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for the letters from U+0100 on, in order.

    >>> byte_of_letter()["a"], byte_of_letter()["Ġ"]
    (97, 32)
    """
    itself = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in itself]
    return {chr(byte): byte for byte in itself} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


def spelled_bytes(token: str, spelling: Spelling, added: bool) -> bytes:
    """The bytes of one token. A token with a character outside the alphabet stands for its own text.

    >>> spelled_bytes("Ġhi", "byte_level", False), spelled_bytes("<0x0A>", "byte_fallback", False)
    (b' hi', b'\\n')
    """
    if spelling == "byte_level":
        letters = byte_of_letter()
        return bytes(letters[char] for char in token) if all(char in letters for char in token) else token.encode()
    if not added and re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode()
