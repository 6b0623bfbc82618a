"""The instructions of IFEval that need no library to check, by their published names.

Each takes the answer's text and the instruction's settings. Where the original splits text with a library (sentences)
a plain rule stands here, so results may differ by a few prompts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from smallpress.run.errors import UserError

LEFT_OUT = frozenset({"language:response_language"})
"""Needs a library that tells languages apart."""

Settings = Mapping[str, Any]
Check = Callable[[str, Settings], bool]

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def check_instruction(name: str, settings: Settings, text: str) -> bool:
    """Whether the text follows an instruction. Raises UserError for one that is unknown or lacks a setting."""
    if name not in INSTRUCTIONS:
        raise UserError(f"the instruction {name!r} is unknown", f"it is none of: {', '.join(sorted(INSTRUCTIONS))}")
    try:
        return INSTRUCTIONS[name](text, settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the instruction {name!r} has wrong settings: {error}", "check the file's kwargs") from None


def _compare(n: int, settings: Settings, wanted: str, relation: str = "relation") -> bool:
    """ "less than" or "at least" so many."""
    at_least = settings.get(relation) != "less than"
    return n >= settings[wanted] if at_least else n < settings[wanted]


def _count_words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def _count_sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?。！？])[\"')\]]*\s+", text.strip()) if re.search(r"\w", part)])


def _keyword_count(text: str, keyword: str) -> int:
    return len(re.findall(re.escape(keyword), text, re.IGNORECASE))


def _paragraphs(text: str) -> list[str] | None:
    """Those between *** dividers; None where one in the middle is empty."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    inner = parts[1:-1] if len(parts) > 2 else []
    return None if any(not part for part in inner) else [part for part in parts if part]


def _number_paragraphs(text: str, settings: Settings) -> bool:
    parts = _paragraphs(text)
    return parts is not None and len(parts) == settings["num_paragraphs"]


def _nth_paragraph(text: str, settings: Settings) -> bool:
    parts = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    n, nth = settings["num_paragraphs"], settings["nth_paragraph"]
    if len(parts) != n or nth > n:
        return False
    first = re.match(r"['\"]*([^\s.,?!'\"]*)", parts[nth - 1])
    return first is not None and first[1].casefold() == settings["first_word"].casefold()


def _is_json(text: str, settings: Settings) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _highlights(text: str, settings: Settings) -> bool:
    single = [part for part in re.findall(r"\*[^\n*]*\*", text) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n*]*\*\*", text) if part.strip("*").strip()]
    return len(single) + len(double) >= settings["num_highlights"]


def _two_responses(text: str, settings: Settings) -> bool:
    parts = text.split("******")
    answers = [part.strip() for part in parts if part.strip()]
    empty_inside = any(not part.strip() for part in parts[1:-1])
    return not empty_inside and len(answers) == 2 and answers[0] != answers[1]


def _repeat_prompt(text: str, settings: Settings) -> bool:
    return text.strip().casefold().startswith(settings["prompt_to_repeat"].strip().casefold())


def _postscript(text: str, settings: Settings) -> bool:
    marker = settings["postscript_marker"].strip()
    spelt = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.casefold()))
    return re.search(rf"{spelt}.*$", text.casefold(), re.MULTILINE) is not None


def _letter(text: str, settings: Settings) -> bool:
    n = Counter(text.casefold())[settings["letter"].casefold()]
    return _compare(n, settings, "let_frequency", "let_relation")


def _capitals(text: str, settings: Settings) -> bool:
    n = sum(word.isupper() for word in re.findall(r"[\w'-]+", text))
    return _compare(n, settings, "capital_frequency", "capital_relation")


def _without_title_marks(text: str) -> str:
    return text.strip().strip('"').strip()


INSTRUCTIONS: dict[str, Check] = {
    "keywords:existence": lambda text, s: all(_keyword_count(text, word) for word in s["keywords"]),
    "keywords:frequency": lambda text, s: _compare(_keyword_count(text, s["keyword"]), s, "frequency"),
    "keywords:forbidden_words": lambda text, s: (
        not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in s["forbidden_words"])
    ),
    "keywords:letter_frequency": _letter,
    "length_constraints:number_sentences": lambda text, s: _compare(_count_sentences(text), s, "num_sentences"),
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": lambda text, s: _compare(_count_words(text), s, "num_words"),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, s: (
        len(re.findall(r"\[.*?\]", text)) >= s["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, s: (
        len(re.findall(r"^\s*(?:\*[^*\n].*|-.*)$", text, re.MULTILINE)) == s["num_bullets"]
    ),
    "detectable_format:constrained_response": lambda text, s: any(one in text for one in CONSTRAINED),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": lambda text, s: (
        len(re.findall(rf"\s?{re.escape(s['section_spliter'])}\s?\d+\s?", text)) >= s["num_sections"]
    ),
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text, s: any(one.strip("<> ") for one in re.findall(r"<<[^\n]+>>", text)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": lambda text, s: (
        _without_title_marks(text).casefold().endswith(s["end_phrase"].strip().casefold())
    ),
    "startend:quotation": lambda text, s: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda text, s: text.isupper(),
    "change_case:english_lowercase": lambda text, s: text.islower(),
    "punctuation:no_comma": lambda text, s: "," not in text,
}
