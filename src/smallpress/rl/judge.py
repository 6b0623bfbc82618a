"""What a judge is: it scores answers that no program can check."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Message = Mapping[str, Any]
Asked = tuple[Sequence[Message], str]
"""A conversation that ends with a question, and the answer to be judged."""


class Judge(Protocol):
    bounded: bool  # scores are from 0 to 1, else logits

    def scores(self, asked: Sequence[Asked]) -> list[float]:
        """One for each; NaN where the judge has failed. Raises UserError where asking again cannot mend it."""
        ...
