"""The waiting line: whose request is next.

The most urgent priority first (the lowest number, as with `nice`). Among equals the owner who has the fewest places in
the batch, then the one for whom fewest tokens were computed since the line was last empty, then first come. So whoever
sends a thousand requests waits behind his own, not others behind him.

Counting tokens is the Virtual Token Counter of Sheng et al. 2024, Fairness in Serving Large Language Models: an owner
who comes to the line later starts at the least of those who stand in it, so that nobody saves up turns.
"""

from collections import deque
from collections.abc import Iterator, Mapping

from smallpress.engine.step import Sequence


class Line:
    def __init__(self) -> None:
        self._queues: dict[tuple[int, str], deque[Sequence]] = {}  # by priority and owner; none of them empty
        self._served: dict[str, int] = {}  # tokens, while anybody waits

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for queue in self._queues.values() for sequence in queue)

    def add(self, sequence: Sequence) -> None:
        self._queue(sequence).append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Before all others of its owner: it had begun."""
        self._queue(sequence).appendleft(sequence)

    def first(self, places: Mapping[str, int]) -> Sequence:
        """Who is next, where owners have so many `places` in the batch."""

        def standing(key: tuple[int, str]) -> tuple[int, int, int, int]:
            priority, owner = key
            return priority, places.get(owner, 0), self._served.get(owner, 0), self._queues[key][0].request_id

        return self._queues[min(self._queues, key=standing)][0]

    def remove(self, sequence: Sequence) -> None:
        key = sequence.request.priority, sequence.request.owner
        self._queues[key].remove(sequence)
        if not self._queues[key]:
            del self._queues[key]

    def charge(self, owner: str, n_tokens: int) -> None:
        """So many tokens of the owner's are computed."""
        if self._queues:
            self._served[owner] = self._served.get(owner, 0) + n_tokens

    def _queue(self, sequence: Sequence) -> deque[Sequence]:
        key = _, owner = sequence.request.priority, sequence.request.owner
        waiting = {owner for _, owner in self._queues}
        if not waiting:
            self._served.clear()
        elif owner not in waiting:
            least = min(self._served.get(other, 0) for other in waiting)
            self._served[owner] = max(self._served.get(owner, 0), least)
        return self._queues.setdefault(key, deque())
