"""Which families at which levels, written as people write it."""

import re

from smallpress.run.errors import UserError
from smallpress.tasks.task import find_task


def readable(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """The tasks of a recipe as they are, for a validator: ValueError where one cannot be read."""
    try:
        if tasks:
            parse_mixture(",".join(tasks))
    except UserError as error:
        raise ValueError(str(error)) from None
    return tasks


def parse_mixture(words: str) -> list[tuple[str, int]]:
    """Families with a level, with levels, or with all they have, as (family, level) pairs, none twice.

    >>> parse_mixture("chained_sum:3-4,addition:2")
    [('chained_sum', 3), ('chained_sum', 4), ('addition', 2)]
    """
    pairs: dict[tuple[str, int], None] = {}
    for spec in filter(None, (part.strip() for part in words.split(","))):
        name, colon, levels = spec.partition(":")
        known = find_task(name).levels
        bounds = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", levels)
        if bounds:
            first, last = int(bounds[1]), int(bounds[2] or bounds[1])
            chosen = [level for level in known if first <= level <= last]
        else:
            chosen = [] if colon else list(known)
        if not chosen:
            raise UserError(f"{spec!r} names no level of {name}", f"it has the levels {', '.join(map(str, known))}")
        pairs |= {(name, level): None for level in chosen}
    if not pairs:
        raise UserError("no task is named", "for example chained_sum:3-5,word_problem")
    return list(pairs)
