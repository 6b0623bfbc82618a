"""Count letters: what a model that sees tokens does not see at a glance."""

from __future__ import annotations

from functools import cache

from smallpress.tasks.dice import Dice
from smallpress.tasks.family import Family, Posed

Problem = tuple[tuple[str, ...], str]  # the words; the letter, "" for all of them

_SHORT = """cat dog sun hat bee egg tree moon book door fish bird milk rain snow star ship hill lake road apple bread
    chair table house mouse horse sheep tiger zebra grass plant stone water river ocean beach cloud storm light
    night green white black brown queen cheese butter pepper carrot potato tomato banana orange lemon cherry
    kitten puppy bunny rabbit monkey parrot turtle spider window garden mirror pillow basket bottle button pencil
    letter number summer winter spring sister brother mother father doctor farmer teacher baker sailor runner"""
SHORT_WORDS = tuple(_SHORT.split())

_LONG = """elephant butterfly crocodile hippopotamus alligator kangaroo grasshopper dragonfly strawberry blueberry
    raspberry pineapple watermelon cucumber cauliflower mushroom sandwich chocolate breakfast restaurant kitchen
    furniture television telephone newspaper dictionary library university hospital passenger committee necessary
    success business happiness sleeplessness assessment possession mississippi tennessee bookkeeper balloon
    raccoon tomorrow yesterday afternoon midnight september november december mountain waterfall volcano adventure
    discovery exploration imagination conversation information education celebration competition engineer
    scientist musician photographer blackboard classroom homework notebook calculator addition subtraction
    multiplication parallel rectangle triangle experiment temperature thermometer"""
LONG_WORDS = tuple(_LONG.split())


class Letters(Family[Problem]):
    """How many times does the letter e appear in the word cheese?"""

    name = "letters"
    levels = (1, 2, 3, 4)
    level_means = "all letters of a word; one letter in a short word, a long word, three words"
    step_means = "looking at one letter"

    def draw(self, level: int, dice: Dice) -> Problem:
        if level == 1:
            return (dice.pick(SHORT_WORDS),), ""
        if level == 4:
            words = tuple(dice.sample(SHORT_WORDS, 3))
            return words, dice.pick("".join(words))
        by_count = _letters_by_count(SHORT_WORDS if level == 2 else LONG_WORDS)
        word, letter = dice.pick(by_count[dice.below(3 if level == 2 else 4)])
        return (word,), letter

    def key(self, problem: Problem) -> str:
        words, letter = problem
        return f"letters:{letter}:{','.join(sorted(words))}"

    def pose(self, problem: Problem, dice: Dice) -> Posed:
        words, letter = problem
        text = " ".join(words)
        n, seen = 0, []
        for char in text.replace(" ", ""):
            n += not letter or char == letter
            seen.append(f"{char} {n}")
        if letter:
            prompt = f"How many times does the letter {letter} appear in '{text}'?"
        else:
            prompt = f"How many letters are in the word '{text}'?"
        return Posed(prompt, str(n), len(seen), ", ".join(seen) + ".")


@cache
def _letters_by_count(words: tuple[str, ...]) -> dict[int, list[tuple[str, str]]]:
    """The pairs of word and letter where it appears 0, 1, 2, 3 times: drawn evenly, no count is a good guess."""
    pairs = [(word, letter) for word in words for letter in "abcdefghilmnoprstuwy"]
    return {n: [pair for pair in pairs if pair[0].count(pair[1]) == n] for n in range(4)}
