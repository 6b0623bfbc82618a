"""What the engine is asked for and what it gives back: ids only, never text."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from smallpress.run.errors import UserError

FinishReason = Literal["stop", "length", "cancelled"]


class Stopper(Protocol):
    """Decides on decoded text, which the engine never sees, whether a completion is over."""

    def push(self, id: int) -> bool:
        """Take the next id of the completion; True ends it. Called once for each new id, in order."""


class Constraint(Protocol):
    """Holds one completion to a form. The engine asks `allowed` before each draw and gives `push` what was drawn."""

    def allowed(self) -> NDArray[np.intp] | None:
        """The ids that may come next, at least one, rising; None where any may."""

    def push(self, id: int) -> bool:
        """Take the next id of the completion; True ends it."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How ids are drawn.

    `temperature` 0 is greedy. Filters apply in this order: `top_k` most likely (0: all), then the smallest set with
    probability `top_p`, then those at least `min_p` times as likely as the best; equals at a border stay.
    `seed` and the index of the new token decide the draw alone, whatever else the engine is running.
    Before all that, `logit_bias` is added to the logits of its ids, and `presence_penalty` is taken from those of every
    id the completion already holds, `frequency_penalty` once for each time. Pieces name the `n_top` likeliest tokens.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    logit_bias: tuple[tuple[int, float], ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    n_top: int = 0

    def __post_init__(self) -> None:
        for name, holds, range_ in (
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", self.temperature == 0.0 or 1e-3 <= self.temperature <= 1e3, "0 (greedy) or 0.001 to 1000"),
            ("top_p", 0.0 < self.top_p <= 1.0, "above 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 (off) or above"),
            ("min_p", 0.0 <= self.min_p <= 1.0, "from 0 to 1"),
            ("seed", 0 <= self.seed < 2**63, "from 0 to 2^63 - 1"),
            ("logit_bias", all(id >= 0 and abs(b) <= 100 for id, b in self.logit_bias), "ids with -100 to 100"),
            ("presence_penalty", abs(self.presence_penalty) <= 2.0, "from -2 to 2"),
            ("frequency_penalty", abs(self.frequency_penalty) <= 2.0, "from -2 to 2"),
            ("n_top", 0 <= self.n_top <= 20, "from 0 to 20"),
        ):
            if not holds:
                raise UserError(f"{name} is {getattr(self, name)}", f"it must be {range_}")

    @property
    def filtered(self) -> bool:
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0

    @property
    def changes_logits(self) -> bool:
        return bool(self.logit_bias or self.presence_penalty or self.frequency_penalty)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to continue. `group` is for the caller to name rollouts of one prompt; the engine goes by the ids.

    `owner` is whose it is: owners share out the places (line.py). A lower `priority` goes first. Pages are shared
    between requests of equal `salt` only: with a secret for each, nobody learns by the time an answer takes what others
    have asked.

    `adapter` is the number that `Engine.add_adapter` gave, 0 the model as it is.

    Of a completion with a `constraint` nothing is drafted: what may come next is known one id at a time.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    stop_ids: frozenset[int] = frozenset()
    stopper: Stopper | None = None
    constraint: Constraint | None = None
    group: Hashable | None = None
    owner: str = ""
    priority: int = 0
    salt: bytes = b""
    adapter: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """`ids` are the new ones, the one that stopped it included; `logprobs[i]` is log softmax(logits / T)[ids[i]].

    The softmax is over the whole vocabulary, before any filter; a greedy request reports T = 1.
    `n_cached` of the `n_prompt` prompt tokens were found in pages computed for another request. `n_accepted` of the ids
    had been drafted, and `n_drafted - n_accepted` others were drafted in vain.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    n_prompt: int
    n_cached: int
    n_drafted: int = 0
    n_accepted: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One new token of one request; `completion` is set on the last, `top` as many as the request asked for."""

    request_id: int
    id: int
    logprob: float
    completion: Completion | None
    top: tuple[tuple[int, float], ...] = ()
