"""How a model behind an address is asked, what that costs as its answers come, and the end where the money is."""

import os
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from smallpress.run.endpoint import Client, Endpoint, Reply
from smallpress.run.errors import UserError
from smallpress.run.settings import Settings


class EndpointSettings(Settings):
    """A model that is an address; prices in your money for a million tokens."""

    model: str = "default"
    key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    concurrency: int = Field(8, ge=1, le=256)
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(300.0, gt=0)
    retries: int = Field(6, ge=0)
    price_in: float = Field(0.0, ge=0)
    price_out: float = Field(0.0, ge=0)
    max_cost: float | None = Field(None, gt=0)

    def client(self, url: str) -> Client:
        """Asks `url` as these settings say; a run that it leaves without an answer can be gone on with."""
        later = "go on later with: smallpress resume"
        key, pace = os.environ.get(self.key_env), self.requests_per_minute
        return Client(
            Endpoint(url, key, self.key_env, self.concurrency, pace, self.timeout, self.retries + 1, later=later)
        )


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
