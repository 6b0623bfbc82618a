"""Drafts: ids that may come next run in the same step as the newest one, and are kept as far as they prove right.

Every row of a draft is drawn from with the seed and index it would have had in a step of its own (randomness.py), and a
drafted id is right when it is the one drawn. So a draft changes how many steps a completion takes and nothing in it,
greedy or sampled; what ran after the first wrong id is dropped. (Leviathan et al. 2023 accept drafts such that the
distribution stays; equal draws keep the very ids.)

When it pays: a step of few rows waits for memory, which holds every weight once however many rows there are, so a row
more takes a fraction of a step. With many requests running it takes as long as any of theirs and is less sure to give
an id. So a sequence drafts as far as its ids are likely enough to be right, which `Pace` learns, and a step with drafts
has at most `ROWS` rows: with as many requests, or a prompt in the step, nobody drafts.
"""

from collections.abc import Sequence
from typing import Protocol

from smallpress.model.config import ModelConfig, MoE
from smallpress.model.sizes import mtp_active, parameters

ROWS = 16
"""Rows of a step, drafted ones included, beyond which no more are drafted."""
ROW_COST = 0.2
"""What one row more takes, as a share of the step that runs anyway."""
USUALLY_RIGHT = 0.85
"""Share of the tokens drafted by DeepSeek-V3's module that are right: 85 to 90 % (2024, section 5.4.3)."""
LONGEST, SHORTEST = 4, 2  # ids looked up
MEMORY = 8  # judged ids over which the chance of the next is averaged
RETRY = 16  # steps from one try to the next while drafts do not pay


class Drafter(Protocol):
    """Proposes how one sequence goes on. Each request has its own, made at its start and dropped at its end.

    It may keep what it has worked out: the ids of later calls begin with those of earlier ones.
    """

    def propose(self, ids: Sequence[int], k: int) -> list[int]:
        """At most `k` ids that may follow `ids`, prompt and completion so far; none where it has no idea."""


class PromptLookup:
    """The text repeats itself: what followed the last ids where they stood before.

    The longest of the last 4, 3 or 2 ids that occurred earlier counts, and of its occurrences the latest. A repetition
    that reaches the end of the text is taken to go on.

    >>> PromptLookup().propose([7, 1, 2, 8, 9, 5, 1, 2], 3)
    [8, 9, 5]
    >>> PromptLookup().propose([7, 1, 2, 1, 2], 5)
    [1, 2, 1, 2, 1]
    """

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # where the text goes on after its latest occurrence
        self._n_seen = 0

    def propose(self, ids: Sequence[int], k: int) -> list[int]:
        """Takes time for `k` and for the ids that are new since the last call."""
        for end in range(self._n_seen, len(ids)):  # not the end of the text itself: nothing follows it yet
            self._after.update((run, end) for run in _last(ids, end))
        self._n_seen = len(ids)
        start = next((self._after[run] for run in _last(ids, len(ids)) if run in self._after), None)
        if start is None:
            return []
        return [ids[start + i % (len(ids) - start)] for i in range(k)]


def row_cost(config: ModelConfig, by_modules: bool) -> float:
    """What one row more takes, as a share of a step of one: `ROW_COST` of what all rows share, and the row's own
    experts, which come from memory too; with modules, besides, one of them and a head."""
    sizes, dim = parameters(config), config.dim
    moe = [ffn for ffn in map(config.ffn_of, range(config.n_layers)) if isinstance(ffn, MoE)]
    own = sum(3 * dim * ffn.moe_inter_dim * ffn.n_active_experts for ffn in moe)
    drafting = mtp_active(config) + config.vocab_size * dim if by_modules else 0
    return (ROW_COST * (sizes.active - own) + own + drafting) / sizes.active


def modules_pay(config: ModelConfig) -> bool:
    """Whether modules as often right as V3's would give an id more for less than a step: for its row and its draft, and
    for the module that runs every row of every step. In a model of few layers, where one module is a large part of a
    step, they do not."""
    if config.mtp is None:
        return False
    return row_cost(config, by_modules=True) + mtp_active(config) / parameters(config).active < USUALLY_RIGHT


def _last(ids: Sequence[int], end: int) -> list[tuple[int, ...]]:
    """The last ids before `end`, longest first."""
    return [tuple(ids[end - n : end]) for n in range(min(LONGEST, end), SHORTEST - 1, -1)]


class Pace:
    """How far one sequence drafts: as long as a row more gives more ids for its time than the step does without it.

    A step of n rows takes 1 + c (n - 1), where one of one row takes 1 and c is `row_cost`, and gives n ids. Where a
    drafted id is right with chance p when those before it were, the m-th of a draft is an id more with chance p^m: it
    pays while p^m / c > n / (1 + c (n - 1)). p is averaged over the last ids judged. Where not even one id pays, one is
    tried every `RETRY` steps. Only counts decide, never a clock, so a run can be repeated exactly.

    >>> pace = Pace()
    >>> pace.length(n_rows=1), pace.length(n_rows=3)
    (2, 1)
    """

    def __init__(self, row_cost: float = ROW_COST) -> None:
        self.row_cost, self.chance = row_cost, 0.5
        self._n_waited = 0

    def length(self, n_rows: int) -> int:
        """Ids to draft in a step that has `n_rows` rows without drafts."""
        least = self.row_cost * n_rows / (1 + self.row_cost * (n_rows - 1))
        length, gained = 0, self.chance
        while gained > least and length < ROWS:
            length, gained = length + 1, gained * self.chance
        if length == 0:
            self._n_waited = (self._n_waited + 1) % RETRY
            return int(self._n_waited == 0)
        return length

    def judge(self, n_drafted: int, n_right: int) -> None:
        """Of a draft the first `n_right` were right; the next, if there was one, was wrong, and the rest not judged."""
        for right in [1.0] * n_right + [0.0] * (n_right < n_drafted):
            self.chance += (right - self.chance) / MEMORY
