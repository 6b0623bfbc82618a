"""The fair baseline: the best that the untrained model does under any of the forms it could be asked in.

A model that never saw the R1-Zero template scores near zero under it, and a gain measured from there is mostly a gain
in form. So the untrained model is asked in every form, greedily and at T 0.6, and read strictly and leniently; its best
greedy accuracy is the baseline. Picking the best of several on the held-out problems themselves favours the baseline,
so it errs against us.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final, Literal, Self, get_args

from pydantic import Field, model_validator

from smallpress.engine.engine import Engine
from smallpress.evaluate.evaluate import Shown, ask, judge
from smallpress.evaluate.intervals import Frozen
from smallpress.evaluate.result import Result, Sampling, read_json, validated
from smallpress.evaluate.store import AnswerStore
from smallpress.tasks.check import Checker
from smallpress.tasks.task import Example, Reading
from smallpress.tokenizer.prompts import PROMPT_FORMS
from smallpress.tokenizer.tokenizer import Tokenizer

BASELINE_SCHEMA: Final = "smallpress.baseline/1"


class Baseline(Frozen):
    """Every way the model was measured; `best` is the index of the greedy one with the highest accuracy."""

    schema_: Literal["smallpress.baseline/1"] = Field(default=BASELINE_SCHEMA, alias="schema")
    model: str
    best: int
    results: tuple[Result, ...]

    @model_validator(mode="after")
    def _best_is_greedy(self) -> Self:
        if not (0 <= self.best < len(self.results) and self.results[self.best].sampling.greedy):
            raise ValueError(f"best is {self.best}, which is none of the greedy results")
        return self

    @property
    def result(self) -> Result:
        """The baseline. Its `label` says under which form and reading it was reached."""
        return self.results[self.best]


def baseline(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tasks: Mapping[str, Checker],
    shown: Shown,
    model: str = "model",
    samples: int = 4,
    temperature: float = 0.6,
    top_p: float = 0.95,
    max_tokens: int = 256,
    seed: int = 0,
    on_answer: Callable[[], None] = lambda: None,
    store: AnswerStore | None = None,
    seen: Set[str] | None = None,
    checker: str = "",
) -> Baseline:
    """Three forms, each asked greedily and `samples` times at `temperature`, each read strictly and leniently.

    Each question is answered 3 (1 + samples) times. Where two ways tie, the earlier form and the strict reading win.
    """
    results = []
    for name in PROMPT_FORMS:
        for sampling in (
            Sampling(max_tokens=max_tokens, seed=seed),
            Sampling(samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed),
        ):
            answered = ask(engine, tokenizer, examples, name, sampling, shown, on_answer, store)
            results += [judge(answered, tasks, reading, model, checker, seen) for reading in get_args(Reading)]
    greedy = [i for i, result in enumerate(results) if result.sampling.greedy]
    best = max(greedy, key=lambda i: results[i].overall.accuracy.value)
    return Baseline(model=model, best=best, results=tuple(results))


def answers_needed(n_examples: int, samples: int) -> int:
    """Completions that `baseline` asks for, for a progress bar."""
    return len(PROMPT_FORMS) * n_examples * (1 + samples)


def load_result(path: str | Path) -> Result:
    """The Result in a file, or the best of the Baseline in it. Raises UserError naming the file and the field."""
    value = read_json(path)
    if value.get("schema") == BASELINE_SCHEMA:
        return validated(Baseline, value, path).result
    return validated(Result, value, path)
