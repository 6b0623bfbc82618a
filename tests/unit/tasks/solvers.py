"""A second way to every family's answer: from the words of the prompt alone, by other means than the generator's."""

import itertools
import re
from collections.abc import Callable
from fractions import Fraction
from math import prod


def integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]


def arithmetic(prompt: str) -> set[str]:
    numbers = [int(number) for number in re.findall(r"\d+", prompt)]
    if "*" in prompt:
        return {str(prod(numbers))}
    return {str(numbers[0] - numbers[1] if " - " in prompt else sum(numbers))}


def sequence(prompt: str) -> set[str]:
    """All the answers of the rules that fit: equal differences of first or second order, ratio, recurrence, turns."""
    terms = integers(prompt)
    first = [b - a for a, b in itertools.pairwise(terms)]
    second = [b - a for a, b in itertools.pairwise(first)]
    found = set()
    if len(set(second)) == 1:
        found.add(terms[-1] + first[-1] + second[-1])
    if len({Fraction(b, a) for a, b in itertools.pairwise(terms) if a}) == 1:
        found.add(Fraction(terms[-1]) * Fraction(terms[-1], terms[-2]))
    if len(terms) > 4 and all(a + b == c for a, b, c in zip(terms, terms[1:], terms[2:], strict=False)):
        found.add(terms[-1] + terms[-2])
    if len(terms) > 5 and all(a == b for a, b in zip(first, first[2:], strict=False)):
        found.add(terms[-1] + first[-2])
    return {str(answer) for answer in found}


def countdown(prompt: str) -> set[str]:
    """{"possible"} if any order, signs and grouping of the numbers makes the target."""
    target, *numbers = (int(number) for number in re.findall(r"\d+", prompt))

    def reach(values: tuple[Fraction, ...]) -> bool:
        if len(values) == 1:
            return values[0] == target
        for i, j in itertools.permutations(range(len(values)), 2):
            rest = tuple(value for k, value in enumerate(values) if k not in (i, j))
            a, b = values[i], values[j]
            if any(reach((*rest, value)) for value in (a + b, a - b, a * b, *([a / b] if b else []))):
                return True
        return False

    return {"possible"} if reach(tuple(Fraction(number) for number in numbers)) else set()


def sorting(prompt: str) -> set[str]:
    return {", ".join(map(str, sorted(integers(prompt), reverse="from largest" in prompt)))}


def letters(prompt: str) -> set[str]:
    text = re.search(r"'(.*)'", prompt)[1]
    letter = re.search(r"the letter (\w) ", prompt)
    return {str(text.count(letter[1]) if letter else len(text))}


def bases(prompt: str) -> set[str]:
    base = 2 if "binary" in prompt else 16 if "hexadecimal" in prompt else int(re.search(r"base (\d)", prompt)[1])
    if "in decimal" in prompt:
        return {str(int(re.search(r"number (\w+)", prompt)[1], base))}
    number = int(re.search(r"number (\d+)", prompt)[1])
    return {
        "".join(digits)
        for length in range(1, 9)
        for digits in [_digits(number, base, length)]
        if int("".join(digits), base) == number and digits[0] != "0"
    }


def _digits(number: int, base: int, length: int) -> list[str]:
    return ["0123456789abcdef"[number // base**place % base] for place in range(length - 1, -1, -1)]


def largest(prompt: str) -> set[str]:
    numbers = re.findall(r"\d+(?:\.\d+)?", prompt)
    return {(min if "smallest" in prompt else max)(numbers, key=Fraction)}


def ordering(prompt: str) -> set[str]:
    """Every person whom some order of the people that fits all statements puts into the place asked for."""
    *statements, question = re.findall(r"[^.?]+[.?]", prompt)
    pairs = [re.match(r"\s*(\w+) is (\w+) than (\w+)\.", statement).groups() for statement in statements]
    down = {"shorter", "younger", "slower", "poorer", "weaker"}
    above = [(b, a) if word in down else (a, b) for a, word, b in pairs]
    people = sorted({person for pair in above for person in pair})
    asked = question.rstrip("?").split()[-1]
    from_bottom = asked in down or asked in {word.removesuffix("r") + "st" for word in down}
    place = 1 if "second" in question else 2 if "third" in question else 0
    return {
        order[-1 - place if from_bottom else place]
        for order in itertools.permutations(people)
        if all(order.index(a) < order.index(b) for a, b in above)
    }


def knights(prompt: str) -> set[str]:
    """Every way to be knights and knaves in which each says the truth exactly when a knight, from the English."""
    spoken = re.findall(r'(\w+) says: "([^"]*)\."', prompt)
    people = [speaker for speaker, _ in spoken]

    def true(speaker: str, words: str, knight: dict[str, bool]) -> bool:
        if found := re.fullmatch(r"If (.*), then (.*)", words):
            return not true(speaker, found[1], knight) or true(speaker, found[2], knight)
        if found := re.fullmatch(r"(.* is a \w+|I am a \w+) (and|or) (.*)", words):
            both = true(speaker, found[1], knight), true(speaker, found[3], knight)
            return all(both) if found[2] == "and" else any(both)
        if found := re.fullmatch(r"(\w+) (?:is|am) a (knight|knave)", words):
            return knight[speaker if found[1] == "I" else found[1]] == (found[2] == "knight")
        if found := re.fullmatch(r"(\w+) and I are (of the same kind|different)", words):
            return (knight[found[1]] == knight[speaker]) == (found[2] != "different")
        if found := re.fullmatch(r"At least one of us is a (knight|knave)", words):
            return any(kind == (found[1] == "knight") for kind in knight.values())
        found = re.fullmatch(r"(?:Both|All) of us are (knight|knave)s", words)
        return all(kind == (found[1] == "knight") for kind in knight.values())

    fitting = set()
    for kinds in itertools.product((True, False), repeat=len(people)):
        knight = dict(zip(people, kinds, strict=True))
        if all(true(speaker, words, knight) == knight[speaker] for speaker, words in spoken):
            fitting.add(", ".join(f"{name} {'knight' if kind else 'knave'}" for name, kind in knight.items()))
    return fitting


# The word problems, read afresh: what begins like this is answered by that formula of its numbers, in their order.
STORIES: dict[str, Callable[..., float]] = {
    # one step
    r"\w+ has # \w+ and buys # more. How many": lambda a, b: a + b,
    r"\w+ has # \w+\. \w+ has # \w+\. How many do they have together": lambda a, b: a + b,
    r"There are # \w+ on the table and # in the box": lambda a, b: a + b,
    r"\w+ found # \w+ in the morning and # in the evening": lambda a, b: a + b,
    r"\w+ read # pages on Monday and # pages on Tuesday": lambda a, b: a + b,
    r"\w+ gave # \w+ to \w+ and kept #\. How many \w+ did \w+ have at first": lambda a, b: a + b,
    r"\w+ has # \w+ and gives # to \w+\. How many \w+ does \w+ have left": lambda a, b: a - b,
    r"\w+ had # \w+ but lost # of them": lambda a, b: a - b,
    r"\w+ has # \w+\. \w+ has #\. How many more": lambda a, b: a - b,
    r"There were # birds in a tree and # flew away": lambda a, b: a - b,
    r"\w+ wants # \w+ and has #\. How many more": lambda a, b: a - b,
    r"There are # \w+ in two boxes\. One box holds #\. How many \w+ are in the other": lambda a, b: a - b,
    r"There are # bags with # \w+ in each": lambda a, b: a * b,
    r"\w+ buys # tickets\. Each ticket costs # dollars": lambda a, b: a * b,
    r"\w+ walks # miles every day\. How many miles does \w+ walk in # days": lambda a, b: a * b,
    r"\w+ has # boxes\. Each box holds #": lambda a, b: a * b,
    r"A hall has # rows of # chairs": lambda a, b: a * b,
    r"\w+ shares # \w+ equally among # friends": lambda a, b: a / b,
    r"\w+ puts # \w+ into bags of #": lambda a, b: a / b,
    r"# children form # equal teams": lambda a, b: a / b,
    r"\w+ pays # dollars for # tickets": lambda a, b: a / b,
    r"A book has # pages\. \w+ reads # pages a day\. How many days": lambda a, b: a / b,
    # two steps
    r"\w+ has # \w+\. \w+ buys # more and gives # to": lambda a, b, c: a + b - c,
    r"\w+ had # \w+, found # more, then lost #": lambda a, b, c: a + b - c,
    r"A bus has # people\. # get on and # get off": lambda a, b, c: a + b - c,
    r"\w+ has # \w+\. \w+ has # more than \w+\. How many \w+ do they have together": lambda a, b: 2 * a + b,
    r"\w+ read # pages today and # more than that yesterday": lambda a, b: 2 * a + b,
    r"\w+ has # \w+\. \w+ has # times as many\. How many": lambda a, b: a * (1 + b),
    r"\w+ buys # pens at # dollars each and pays with # dollars": lambda a, b, c: c - a * b,
    r"\w+ has # dollars and buys # tickets for # dollars each": lambda a, b, c: a - b * c,
    r"\w+ has # bags of # \w+ and gives away #": lambda a, b, c: a * b - c,
    r"There are # rows of # chairs\. # chairs are taken": lambda a, b, c: a * b - c,
    r"\w+ has # boxes of # \w+ and # more": lambda a, b, c: a * b + c,
    r"\w+ ran # miles a day for # days, then # miles": lambda a, b, c: a * b + c,
    r"\w+ has # red and # blue \w+\. \w+ shares them equally among # friends": lambda a, b, c: (a + b) / c,
    r"\w+ has # \w+, keeps # and puts the rest equally into # bags": lambda a, b, c: (a - b) / c,
    # three steps
    r"\w+ has # \w+\. \w+ gives # to \w+, buys # more and loses #": lambda a, b, c, d: a - b + c - d,
    r"A bus has # people\. # get off, # get on, then # get off": lambda a, b, c, d: a - b + c - d,
    r"\w+ has # bags of # \w+ and # boxes of # \w+\. How many": lambda a, b, c, d: a * b + c * d,
    r"\w+ buys # pens at # dollars each and # books at # dollars each\. How": lambda a, b, c, d: a * b + c * d,
    r"\w+ earns # dollars an hour and works # hours a day for # days\. \w+ spends #": lambda a, b, c, d: a * b * c - d,
    r"\w+ has # bags of # \w+\. \w+ keeps # and shares the rest equally among #": lambda a, b, c, d: (a * b - c) / d,
    r"A book has # pages\. \w+ reads # pages a day for # days, then # pages": lambda a, b, c, d: (a - b * c) / d,
    r"(\w+) has # \w+\. \w+ has # more than \1\. (\w+) has # times .* do \1 and \2 have": lambda a, b, c: (
        a + (a + b) * c
    ),
    # four steps
    r"\w+ buys # pens at # dollars each and # books at # dollars each\. \w+ pays with #": (
        lambda a, b, c, d, e: e - a * b - c * d
    ),
    r"(\w+) has # \w+\. \w+ has # more than \1\. \w+ has # times .* all three": lambda a, b, c: 2 * a + b + (a + b) * c,
    r"\w+ has # \w+\. \w+ loses #, finds # and buys # bags of #": lambda a, b, c, d, e: a - b + c + d * e,
    r"\w+ has # bags of # \w+ and # boxes of # \w+\. \w+ shares them all equally among #": (
        lambda a, b, c, d, e: (a * b + c * d) / e
    ),
}


def story(prompt: str) -> set[str]:
    found = set()
    for beginning, formula in STORIES.items():
        if re.match(beginning.replace("#", r"\d+"), prompt):
            answer = formula(*integers(prompt))
            assert answer == int(answer), prompt
            found.add(str(int(answer)))
    return found


SOLVERS: dict[str, Callable[[str], set[str]]] = {
    **dict.fromkeys(("chained_sum", "addition", "subtraction", "product"), arithmetic),
    **dict.fromkeys(("word_problem", "long_word_problem"), story),
    "countdown": countdown,
    "sequence": sequence,
    "sorting": sorting,
    "letters": letters,
    "bases": bases,
    "largest": largest,
    "ordering": ordering,
    "knights_knaves": knights,
}
