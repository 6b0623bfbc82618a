"""Who used how much of which model, and what it costs in money and energy."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from smallpress.run.settings import Settings
from smallpress.server.generation import Usage
from smallpress.server.ledger import Ledger

MILLION = 1_000_000
PUBLISHED = {"deepseek-reasoner, January 2025": (0.14, 0.55, 2.19), "o1, January 2025": (7.5, 15.0, 60.0)}
"""US dollars for a million tokens of others: prompt found in the cache, prompt computed, completion."""


class Rates(Settings):
    """What is paid: for the machine by the hour, or for a million tokens of each kind. Thinking is paid as output.

    `watts` is what the machine draws while it computes.
    """

    currency: str = Field(default="USD", pattern=r"[A-Z]{3}")
    watts: float = Field(default=0.0, ge=0)
    machine_hour: float = Field(default=0.0, ge=0)
    hit: float = Field(default=0.0, ge=0)
    miss: float = Field(default=0.0, ge=0)
    out: float = Field(default=0.0, ge=0)


FREE = Rates()


@dataclass(frozen=True, slots=True)
class Accounts:
    """What is paid, for a model in `by_model` by its own rates, and the folder in which what was used is kept."""

    rates: Rates = FREE
    by_model: Mapping[str, Rates] = field(default_factory=dict)
    state: Path | None = None


@dataclass(slots=True)
class Counts:
    """Tokens; `n_new` has the thinking in it."""

    n_requests: int = 0
    n_hit: int = 0
    n_miss: int = 0
    n_new: int = 0
    n_thinking: int = 0

    @property
    def n_computed(self) -> int:
        """Tokens that went through the model, as near as a count can say what each request took of its time."""
        return self.n_miss + self.n_new

    def as_json(self) -> dict[str, int]:
        return {
            "requests": self.n_requests,
            "prompt_cache_hit_tokens": self.n_hit,
            "prompt_cache_miss_tokens": self.n_miss,
            "completion_tokens": self.n_new,
            "reasoning_tokens": self.n_thinking,
        }


class Meter:
    """Counts by key's name and model, since the server started or since the ledger was begun.

    `busy_seconds` says how long each model's engine has computed since the server started. `base_of`: an adapter's name
    -> that of the model whose engine computes it.
    """

    def __init__(
        self,
        rates: Rates = FREE,
        by_model: Mapping[str, Rates] | None = None,
        ledger: Ledger | None = None,
        busy_seconds: Callable[[], dict[str, float]] = dict,
        base_of: Mapping[str, str] | None = None,
    ) -> None:
        self._base_of = base_of or {}
        self.rates, self.by_model, self._ledger = rates, by_model or {}, ledger
        self.counts: dict[tuple[str, str], Counts] = defaultdict(Counts)
        self._busy_seconds, self._kept, self._earlier = busy_seconds, defaultdict[str, float](float), dict[str, float]()
        if ledger is not None:
            self.counts |= {place: Counts(*row) for place, row in ledger.used.items()}
            self._earlier = ledger.busy
        self.since = int(time.time()) if ledger is None else ledger.since

    def charge(self, owner: str, model: str, usage: Usage) -> None:
        """A request that ended before its first token is not charged."""
        if usage.n_new == 0:
            return
        more = Counts(1, usage.n_hit, usage.n_prompt - usage.n_hit, usage.n_new, usage.n_thinking)
        self.counts[owner, model] = _sum(self.counts[owner, model], more)
        if self._ledger is not None:
            base = self._base(model)
            seconds = self._busy_seconds().get(base, self._kept[base])  # of a server that has closed, nothing more
            self._ledger.add(owner, model, _columns(more), seconds - self._kept[base], base)
            self._kept[base] = seconds

    def report(self, busy_seconds: dict[str, float], owner: str | None = None) -> dict[str, Any]:
        """The page /usage. `busy_seconds`: of each model's engine, since the start; `owner`: show this one's rows only.

        The machine's price and its energy are shared out by the tokens each row had computed. Idle time is nobody's: it
        is in the cost of a million tokens only as far as the machine was kept busy.
        """
        busy_seconds = {model: seconds + self._earlier.get(model, 0.0) for model, seconds in busy_seconds.items()}
        rows = []
        for (name, model), counts in sorted(self.counts.items()):
            if owner in (None, name):
                hours = self._hours(counts, model, busy_seconds.get(self._base(model), 0.0))
                cost, energy = self._cost(counts, model, hours), hours * self.rates.watts / 1000
                used = {"tokens": counts.as_json(), "cost": round(cost, 9), "kwh": round(energy, 9)}
                rows.append({"key": name, "model": model} | used)
        return {
            "since": self.since,
            "rates": self.rates.model_dump(),
            "rates_by_model": {model: rates.model_dump() for model, rates in self.by_model.items()},
            "rows": rows,
            "models": {model: self._speed(model, seconds) for model, seconds in busy_seconds.items()},
            "published_per_million": {
                name: dict(zip(("hit", "miss", "out"), prices, strict=True)) for name, prices in PUBLISHED.items()
            },
        }

    def _rates_of(self, model: str) -> Rates:
        return self.by_model.get(model, self.rates)

    def _base(self, model: str) -> str:
        return self._base_of.get(model, model)

    def _of_engine(self, model: str) -> Counts:
        """All that the model's engine computed, its adapters' tokens too."""
        total = Counts()
        for (_, name), counts in self.counts.items():
            if self._base(name) == self._base(model):
                total = _sum(total, counts)
        return total

    def _hours(self, counts: Counts, model: str, seconds: float) -> float:
        """The share of the time in which the model's engine computed."""
        computed = self._of_engine(model).n_computed
        return counts.n_computed / computed * seconds / 3600 if computed else 0.0

    def _cost(self, counts: Counts, model: str, hours: float) -> float:
        rates = self._rates_of(model)
        tokens = counts.n_hit * rates.hit + counts.n_miss * rates.miss + counts.n_new * rates.out
        return hours * rates.machine_hour + tokens / MILLION

    def _speed(self, model: str, seconds: float) -> dict[str, float | None]:
        """What this machine did while it computed, and what a million tokens of completions take at that pace."""
        n_new = self._of_engine(model).n_new
        pace = n_new / seconds if seconds else 0.0
        hours = MILLION / pace / 3600 if pace else None
        return {
            "busy_seconds": round(seconds, 3),
            "completion_tokens_per_second": round(pace, 2),
            "machine_cost_per_million_completion_tokens": _rounded(hours, self._rates_of(model).machine_hour),
            "kwh_per_million_completion_tokens": _rounded(hours, self.rates.watts / 1000),
        }


def _rounded(hours: float | None, rate: float) -> float | None:
    return None if hours is None else round(hours * rate, 6)


def _sum(first: Counts, second: Counts) -> Counts:
    return Counts(*(a + b for a, b in zip(_columns(first), _columns(second), strict=True)))


def _columns(counts: Counts) -> list[int]:
    return list(asdict(counts).values())
