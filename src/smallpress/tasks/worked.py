"""The worked example a prompt may show: a problem of the kind asked, with program-written working, never that one."""

from itertools import islice

from smallpress.tasks.example import Example, worked_completion
from smallpress.tasks.task import TASKS

CANDIDATES = 8
DEFAULT = ("chained_sum", 3)


def worked_example(asked: Example | None = None) -> tuple[str, str]:
    """A question and its completion, of the family and level of `asked`, from the side that is trained on.

    The same one for all problems of a level, so that prompts share their beginning, but for the problem it is itself.
    A kind without program-written working, such as a file's, is shown a sum of three numbers.

    >>> worked_example()
    ('What is 3 + 9 + 1?', '<think> 3 + 9 = 12. 12 + 1 = 13. </think> <answer> 13 </answer>')
    """
    family, level = DEFAULT
    if asked is not None and asked.family in TASKS and asked.level in TASKS[asked.family].levels:
        family, level = asked.family, asked.level
    stream = TASKS[family].examples("train", 0, level)
    others = (example for example in stream if asked is None or example.key != asked.key)
    # The most varied of a few: 2 + 2 + 2 would show too little.
    chosen = max(islice(others, CANDIDATES), key=lambda example: len(set(example.prompt.split())))
    return chosen.prompt, worked_completion(chosen)
