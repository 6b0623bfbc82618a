"""One seed from any number of names and numbers, the same in every process and on every machine."""

from hashlib import blake2b


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits from the parts, by BLAKE2b over their types, lengths and values.

    Different parts give independent seeds: ("a", "b") is not ("ab",), and 1 is not "1". A stream of randomness is
    named where it is used, `derive_seed(settings.seed, "rollout", step, index)`, so nothing has to be saved to
    draw it again after a resume.

    >>> derive_seed("train", 7) == derive_seed("train", 7) != derive_seed("train", "7")
    True
    """
    assert parts, "a seed needs at least one part"
    digest = blake2b(digest_size=8)
    for part in parts:
        assert type(part) in (int, str), f"{part!r} is neither a string nor an int"
        kind, value = ("i", str(part)) if isinstance(part, int) else ("s", part)
        data = value.encode("utf-8", "surrogatepass")
        digest.update(f"{kind}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") >> 1
