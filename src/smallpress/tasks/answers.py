r"""From a completion to its answer, and from an answer to right or wrong: no eval, linear time, bounded length.

Strict reading: the last complete `<answer>..</answer>` or `\boxed{..}` after the thinking. Lenient reading, for
measuring models that never learnt the form: the tags where they are, else the last number or the last line.
A hedge is wrong: "42 or 43", "42, 43", "between 41 and 43", two tags that differ.
"""

from __future__ import annotations

import re

from smallpress.tasks.exact import last_number, read_number

MAX_ANSWER_CHARS = 1000  # a longer answer equals nothing
READ_CHARS = 8000  # answers are looked for in the last so many characters after the thinking

_MARK = re.compile(r"</?answer>|\\boxed\s?\{|[{}]")
_TURN_SIGNS = ("User", "Human", "<|")
_NEXT_TURN = re.compile(r"(?:^|\s)(?:User|Human)\s?:|<\|(?:im_start|im_end|endoftext|end_of_text|eot_id)\|>")


def answers_given(completion: str) -> list[str]:
    r"""Every complete answer after the thinking, in order.

    Where a `</think>` stands, what comes before it is thinking and gives no answer. A box inside a tag or another
    box is part of it. Answers are cut to `MAX_ANSWER_CHARS` + 1 characters, which is too long to be equal to anything.

    >>> answers_given(r"<think> \boxed{5}? </think> <answer> 7 </answer> \boxed{\frac{1}{2}} <answer> 8")
    ['7', '\\frac{1}{2}']
    """
    thought_end = completion.find("</think>")
    after = 0 if thought_end < 0 else thought_end + len("</think>")
    text = completion[max(after, len(completion) - READ_CHARS) :]
    spans: list[tuple[int, int]] = []  # of complete answers, the outermost only
    tag_at: int | None = None
    braces: list[int | None] = []  # open braces: where the content of a box begins, None for other braces

    def add(start: int, end: int) -> None:
        while spans and spans[-1][0] > start:
            spans.pop()
        spans.append((start, end))

    for mark in _MARK.finditer(text):
        sign = mark.group()
        if sign == "<answer>":
            tag_at = mark.end()
        elif sign == "</answer>":
            if tag_at is not None:
                add(tag_at, mark.start())
            tag_at = None
        elif sign == "}":
            box_at = braces.pop() if braces else None
            if box_at is not None:
                add(box_at, mark.start())
        else:
            braces.append(None if sign == "{" else mark.end())
    return [text[start:end].strip()[: MAX_ANSWER_CHARS + 1] for start, end in spans]


def extract_answer(completion: str) -> str | None:
    """The strict reading: the last complete answer, None where there is none."""
    given = answers_given(completion)
    return given[-1] if given else None


def until_next_turn(completion: str) -> str:
    """The completion up to a turn of the user's that the model invented."""
    match = _NEXT_TURN.search(completion) if any(sign in completion for sign in _TURN_SIGNS) else None
    return completion[: match.start()] if match else completion


def extract_lenient(completion: str, number: bool = True) -> str | None:
    """The lenient reading: the answer in tags or box, else the last number, or (number=False) the last line.

    >>> extract_lenient("3 + 4 is 7. User: What is 5 + 6? Assistant: 11"), extract_lenient("So:\\nTom.", number=False)
    ('7', 'Tom.')
    """
    text = until_next_turn(completion)
    strict = extract_answer(text)
    if strict is not None:
        return strict
    tail = text[-READ_CHARS:]
    if number:
        return last_number(tail)
    lines = [line.strip() for line in re.sub(r"</?(?:think|answer)>", "\n", tail).splitlines()]
    return next((line for line in reversed(lines) if line), None)


def agree(given: list[str]) -> bool:
    """Whether all the answers of one completion say the same: a completion that says two things hedges."""
    return all(answer == given[-1] or equal(answer, given[-1]) for answer in given)


_WRAPPERS = (
    (re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf|mbox|operatorname)\s?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\$\$?([^$]+)\$\$?"), r" \1 "),
    (re.compile(r"\\\(([^\\]*)\\\)|\\\[([^\\]*)\\\]"), r" \1\2 "),
    (re.compile(r"^\*\*([^*]*)\*\*$"), r"\1"),
    (re.compile(r"^`([^`]*)`$"), r"\1"),
)
_WRAPPING = re.compile(r"[\\$*`~{\u2212]")
_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{\s?(-?[0-9]+)\s?\}\s?\{\s?([0-9]+)\s?\}|([0-9]) ?([0-9]))")
_LEAD = re.compile(r"(?:(?:so )?(?:the )?(?:final )?answer ?(?:is ?:?|:|=)|[a-z] ?=) ?", re.IGNORECASE)
_CHOICE = re.compile(r"\(([A-Za-z])\)")


def clean(text: str) -> str:
    r"""The answer without what merely surrounds it: LaTeX and Markdown wrappers, "the answer is", a full stop.

    >>> clean(r" The answer is $\boxed{\frac{1}{2}}$. "), clean("**Tom**"), clean(r"1{,}234\,\text{m}")
    ('1/2', 'Tom', '1,234 m')
    """
    if _WRAPPING.search(text):
        text = _unwrap(text)
    text = text.strip().removesuffix(".").strip("\"' ").removesuffix(".")
    lead = _LEAD.match(text)
    text = text[lead.end() :] if lead else text
    choice = _CHOICE.fullmatch(text)
    return " ".join((choice[1] if choice else text).split())


def _unwrap(text: str) -> str:
    for written, meant in (("\u2212", "-"), ("{,}", ","), (r"\%", "%"), (r"\!", ""), (r"\$", "")):
        text = text.replace(written, meant)
    text = re.sub(r"\\[,;: ]|(?<=[^\s$])~|\\quad|\s+", " ", text)  # a tilde in front means "about"
    text = _FRACTION.sub(lambda m: f" {m[1] or m[3]}/{m[2] or m[4]}", text)
    for _ in range(3):  # wrappers in wrappers, not without end
        text = text.strip().removesuffix(".").strip("\"' ")
        for wrapper, kept in _WRAPPERS:
            text = wrapper.sub(kept, text)
    return text


def equal(answer: str, reference: str) -> bool:
    """Whether an answer says the same as the reference: exactly as numbers where the reference is one, else as text.

    Numbers are compared as fractions (0.50 = 1/2, 1,000 = 1000; 0.33 is not 1/3), units are dropped where only
    one side has one, text is compared without case, white space and what surrounds it.

    >>> equal("42 apples", "42"), equal("$1,000", "1000"), equal("42 or 43", "42"), equal("Tom.", "tom")
    (True, True, False, True)
    """
    if len(answer) > MAX_ANSWER_CHARS:
        return False
    answer, reference = clean(answer), clean(reference)
    wanted = read_number(reference)
    if wanted is not None:
        found = read_number(answer)
        return found is not None and found.same(wanted)
    return bool(answer) and _text(answer) == _text(reference)


def _text(text: str) -> str:
    return re.sub(r"\s", "", text.casefold())


# The form, apart from the answer being right -------------------------------------------------------------------------

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def format_ok(completion: str, opened: bool = False) -> bool:
    """Whether the completion is exactly `<think> .. </think> <answer> .. </answer>` and otherwise white space.

    Neither part may be empty or hold another of the four tags. With `opened`, the prompt already ended in
    `<think>` and the completion goes on from there.

    >>> format_ok("<think> 3 + 4 = 7 </think>\\n<answer> 7 </answer>"), format_ok("<answer> 7 </answer>")
    (True, False)
    """
    text = "<think>" + completion if opened else completion.strip()
    if any(text.count(tag) != 1 for tag in TAGS) or not text.startswith("<think>"):
        return False
    thought, closed, rest = text.removeprefix("<think>").partition("</think>")
    rest = rest.strip()
    if not closed or not rest.startswith("<answer>") or not rest.endswith("</answer>"):
        return False
    answer = rest.removeprefix("<answer>").removesuffix("</answer>")
    return bool(thought.strip()) and bool(answer.strip())


def has_thought(completion: str, opened: bool = False) -> bool:
    """A thinking part that was opened, holds something and was closed."""
    text = "<think>" + completion if opened else completion
    _, _, after = text.partition("<think>")
    thought, closed, _ = after.partition("</think>")
    return bool(closed) and bool(thought.strip())


def has_answer_tag(completion: str) -> bool:
    """A complete, non-empty `<answer>..</answer>` anywhere."""
    _, _, after = completion.partition("<answer>")
    answer, closed, _ = after.partition("</answer>")
    return bool(closed) and bool(answer.strip())


def tag_share(completion: str, opened: bool = False) -> float:
    """How much of the form is there: the share of the four tags, each once and after the one before. 0 to 1.

    >>> tag_share("<think> hm </think> 7"), tag_share("</answer> <answer>")
    (0.5, 0.25)
    """
    text = "<think>" + completion if opened else completion
    at, n = 0, 0
    for tag in TAGS:
        found = text.find(tag, at)
        if found >= 0 and text.count(tag) == 1:
            at, n = found + len(tag), n + 1
    return n / len(TAGS)
