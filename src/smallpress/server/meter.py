"""Who used how much of which model."""

from collections import defaultdict
from dataclasses import dataclass

from smallpress.server.generation import Usage


@dataclass(slots=True)
class Counts:
    """Tokens; `n_new` has the thinking in it."""

    n_requests: int = 0
    n_hit: int = 0
    n_miss: int = 0
    n_new: int = 0
    n_thinking: int = 0


class Meter:
    """Counts since the server started, by key's name and model."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counts] = defaultdict(Counts)

    def charge(self, owner: str, model: str, usage: Usage) -> None:
        """A request that ended before its first token is not charged."""
        if usage.n_new == 0:
            return
        counts = self.counts[owner, model]
        counts.n_requests += 1
        counts.n_hit += usage.n_hit
        counts.n_miss += usage.n_prompt - usage.n_hit
        counts.n_new += usage.n_new
        counts.n_thinking += usage.n_thinking
