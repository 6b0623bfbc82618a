"""From questions to a Result: ask them all at once, cut the completions where their form ends, judge each.

Asking and judging are apart, because one set of completions can be read strictly and leniently at no further cost.
The protocol is DeepSeek-R1's (appendix D.1): zero-shot, k samples at T 0.6 and top-p 0.95, pass@1 the mean over
questions of the share of right samples, cons@k the majority's answer; greedy beside it, since it needs one sample.
"""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass

from smallpress.engine.engine import Engine
from smallpress.engine.request import SamplingParams
from smallpress.evaluate.completions import Wanted, answers_of
from smallpress.evaluate.result import Answer, Problem, Result, Sampling
from smallpress.evaluate.store import AnswerStore, Said, answer_key
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.check import Checker
from smallpress.tasks.task import Example, Reading, Verdict
from smallpress.tokenizer.prompts import encode_prompt, prompt_form
from smallpress.tokenizer.thinking import opens_thinking
from smallpress.tokenizer.tokenizer import Tokenizer

ERROR_SHARE = 0.01
"""Of answers on which the checker may come to no finding; one is borne in any case."""

Shown = Callable[[Example], tuple[str, str]]
"""The worked question and completion that the form "r1_zero_example" puts before a question."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Completions not yet judged: `said[i]` are those of `examples[i]`, cut where their form ends.

    `opened[i]`: the prompt ended in <think>, so the completion begins inside the thinking.
    """

    examples: Sequence[Example]
    form: str
    sampling: Sampling
    said: Sequence[Sequence[Said]]
    opened: Sequence[bool]
    seconds: float


def evaluate(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tasks: Mapping[str, Checker],
    form: str = "chat",
    sampling: Sampling | None = None,
    reading: Reading = "strict",
    model: str = "model",
    shown: Shown | None = None,
    on_answer: Callable[[], None] = lambda: None,
) -> Result:
    """Ask and judge. `tasks` maps an example's family to its checker; `shown` gives the worked example of the
    form "r1_zero_example", and other forms ignore it; `on_answer` is called as each completion ends.

    Raises UserError where there is no question, or one does not fit the engine's context.
    """
    answered = ask(engine, tokenizer, examples, form, sampling or Sampling(), shown, on_answer)
    return judge(answered, tasks, reading, model)


def ask(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    form: str,
    sampling: Sampling,
    shown: Shown | None = None,
    on_answer: Callable[[], None] = lambda: None,
    store: AnswerStore | None = None,
) -> Answered:
    """Every question `sampling.samples` times, all in the engine at once, so that batch and prefix sharing are full.

    What the store holds is not asked again, and what is asked is put there.
    """
    if not examples:
        raise UserError("there is no question to ask", "give --n of at least 1, or a file with questions")
    began = time.perf_counter()
    shown = shown if prompt_form(form).with_example else None
    prompts = [tuple(encode_prompt(tokenizer, form, one.prompt, shown and shown(one))) for one in examples]
    opened = [opens_thinking(tokenizer.decode(prompt[-8:])) for prompt in prompts]
    keys = [answer_key(one, i, form, sampling) for one in examples for i in range(sampling.samples)]
    kept = {at: said for at, key in enumerate(keys) if store is not None and (said := store.get(key)) is not None}
    for _ in kept:
        on_answer()
    missing = [at for at in range(len(keys)) if at not in kept]
    wanted = []
    for at in missing:
        n, i = divmod(at, sampling.samples)
        params = _params(sampling, examples[n], i)
        wanted.append(Wanted(prompts[n], params, opened[n], (examples[n].family, examples[n].key)))
    with closing(answers_of(engine, tokenizer, wanted, prompt_form(form).stops, sampling.thinking)) as answers:
        for i, said in answers:
            kept[missing[i]] = said
            if store is not None:
                store.put(keys[missing[i]], said)
            on_answer()
    return Answered(examples, form, sampling, in_rows(kept, sampling.samples), opened, time.perf_counter() - began)


def in_rows(said: Mapping[int, Said], samples: int) -> list[list[Said]]:
    """Answers by their number, `samples` of each question in a row, as one list a question."""
    return [[said[at + i] for i in range(samples)] for at in range(0, len(said), samples)]


def judge(
    answered: Answered,
    tasks: Mapping[str, Checker],
    reading: Reading,
    model: str,
    checker: str = "",
    seen: Set[str] | None = None,
) -> Result:
    """Each completion by its task's checker. A checker that raises is a fault of ours, not a wrong answer.

    `checker` names what judges, for the result; `seen` are the keys of questions that a corpus holds. Raises UserError
    where the checker comes to no finding on more than `ERROR_SHARE` of the answers.
    """
    problems = []
    for one, said, opened in zip(answered.examples, answered.said, answered.opened, strict=True):
        task = tasks[one.family]
        answers = tuple(_judged(one_said, task.check(one, one_said.text, reading, opened)) for one_said in said)
        problems.append(
            Problem(
                key=one.key,
                family=one.family,
                level=one.level,
                steps=one.meta.get("steps"),
                prompt=one.prompt,
                reference=one.reference,
                answers=answers,
                rating=one.meta.get("rating"),
                seen=None if seen is None else one.key in seen,
            )
        )
    _refuse_errors([answer for problem in problems for answer in problem.answers])
    return Result.of(model, answered.form, reading, answered.sampling, problems, answered.seconds, checker)


def _judged(said: Said, verdict: Verdict) -> Answer:
    return Answer(
        text=said.text,
        answer=verdict.answer,
        correct=verdict.correct,
        well_formed=verdict.well_formed,
        reason=verdict.reason,
        n_tokens=said.n_tokens,
        truncated=said.truncated,
        n_thinking=said.n_thinking,
        error=verdict.error,
    )


def _refuse_errors(answers: Sequence[Answer]) -> None:
    reasons = [answer.reason for answer in answers if answer.error]
    if len(reasons) > max(1.0, ERROR_SHARE * len(answers)):
        raise UserError(
            f"the checker came to no finding on {len(reasons)} of {len(answers)} answers, the first time: {reasons[0]}",
            "mend that and evaluate again: answers are kept where --out was given",
        )


def _params(sampling: Sampling, example: Example, i: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=derive_seed("evaluate", sampling.seed, example.family, example.key, i),
    )
