"""Rules as judge: they see form alone. What a text means, helpful or harmful, they do not know."""

from collections.abc import Sequence

from smallpress.corpus.filters import mixed_scripts, repetitive, unreadable
from smallpress.rl.judge import Asked

NOTE = "rules judge form alone: readable, in one script, not in loops; what an answer means they do not see"
REPEATED, OTHER_SCRIPTS = 0.3, 0.05


class RulesJudge:
    """The share of three rules that an answer keeps.

    >>> RulesJudge().scores([((), "It is four."), ((), "so it is " * 20), ((), "<think> hm")])
    [1.0, 0.6666666666666666, 0.6666666666666666]
    """

    bounded = True

    def scores(self, asked: Sequence[Asked]) -> list[float]:
        return [_kept(answer) for _, answer in asked]


def _kept(answer: str) -> float:
    faults = (unreadable(answer), repetitive(answer, REPEATED), mixed_scripts(answer, OTHER_SCRIPTS))
    return faults.count(None) / len(faults)
