"""How an answer that is code is found in a completion, and judged by running it."""

from __future__ import annotations

import re
from abc import abstractmethod

from smallpress.tasks.answers import format_ok, until_next_turn
from smallpress.tasks.check import Checked
from smallpress.tasks.code_tests import CodeVerdict
from smallpress.tasks.example import Example, Reading, Verdict

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def code_given(completion: str, reading: Reading = "strict") -> list[str]:
    r"""The code of every answer after the thinking, without the fence round it.

    Strict takes it from `<answer>` alone; lenient else from the last fenced block, else the whole text.

    >>> code_given("<think> ```python\nno\n``` </think> <answer>```python\nx = 1\n```</answer>")
    ['x = 1\n']
    """
    _, thought, after = completion.rpartition("</think>")
    text = after if thought else completion
    tagged = [_unfenced(answer) for answer in _TAGGED.findall(text)]
    if tagged or reading == "strict":
        return tagged
    fenced = _FENCED.findall(text)
    return fenced[-1:] or [text]


def _unfenced(answer: str) -> str:
    fenced = _FENCED.fullmatch(answer.strip())
    return fenced[1] if fenced else answer.strip("\r\n ") if "\n" not in answer.strip() else answer.strip("\r\n")


class CodeChecked(Checked):
    """A task whose answers are run."""

    @abstractmethod
    def run(self, example: Example, code: str) -> CodeVerdict: ...

    def check(self, example: Example, completion: str, reading: Reading = "strict", opened: bool = False) -> Verdict:
        """Find the code and run its tests. Raises UserError where this machine has no sandbox."""
        well_formed = format_ok(completion, opened)
        given = code_given(until_next_turn(completion) if reading == "lenient" else completion, reading)
        if not given or not given[-1].strip():
            return Verdict(False, None, well_formed, "no answer")
        if any(code != given[-1] for code in given):
            return Verdict(False, given[-1], well_formed, "several answers that differ")
        verdict = self.run(example, given[-1])
        return Verdict(verdict.passed, given[-1], well_formed, "right" if verdict.passed else verdict.reason)
