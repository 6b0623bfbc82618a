"""What asking a teacher costs, counted as its answers come, and the asking ended where the money is."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from smallpress.run.endpoint import Client, Reply
from smallpress.run.errors import UserError
from smallpress.train.distill_settings import EndpointSettings


@dataclass(slots=True)
class Bill:
    """Tokens and money so far."""

    prices: EndpointSettings
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def cost(self) -> float:
        asked, answered = self.prompt_tokens * self.prices.price_in, self.completion_tokens * self.prices.price_out
        return (asked + answered) / 1e6

    def paid_for(self, client: Client, bodies: Iterable[Mapping[str, Any]]) -> Generator[tuple[int, Reply], None, None]:
        """`client.replies`, each charged. Raises UserError before what is asked when the money is spent."""
        for place, reply in client.replies(self._affordable(bodies)):
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens
            yield place, reply

    def _affordable(self, bodies: Iterable[Mapping[str, Any]]) -> Generator[Mapping[str, Any], None, None]:
        most = self.prices.max_cost
        for body in bodies:
            if most is not None and self.cost >= most:
                what = f"{self.cost:.4g} is spent, and endpoint.max_cost is {most:g}"
                raise UserError(what, "allow more, and go on with: smallpress resume")
            yield body
