"""The worked example a prompt may show: a problem of the kind asked, with program-written working, never that one."""

from itertools import islice

from smallpress.run.seeds import derive_seed
from smallpress.tasks.example import Example, worked_completion
from smallpress.tasks.task import TASKS

CANDIDATES = 4
DEFAULT = ("chained_sum", 3)


def worked_example(asked: Example | None = None) -> tuple[str, str]:
    """A question and its completion, of the family and level of `asked`, from the side that is trained on.

    Every problem has an example of its own, always the same: with one for a whole level a small model copies what is
    peculiar to it, such as a plus where the question needs a minus. A kind without program-written working, such as a
    file's, is shown a sum of three numbers.

    >>> worked_example()
    ('What is 3 + 1 + 5?', '<think> 3 + 1 = 4. 4 + 5 = 9. </think> <answer> 9 </answer>')
    """
    family, level = DEFAULT
    if asked is not None and asked.family in TASKS and asked.level in TASKS[asked.family].levels:
        family, level = asked.family, asked.level
    seed = derive_seed(0, "worked example", asked.key if asked is not None else "")
    stream = TASKS[family].examples("train", seed, level)
    others = (example for example in stream if asked is None or example.key != asked.key)
    # The most varied of a few: 2 + 2 + 2 would show too little.
    chosen = max(islice(others, CANDIDATES), key=lambda example: len(set(example.prompt.split())))
    return chosen.prompt, worked_completion(chosen)
