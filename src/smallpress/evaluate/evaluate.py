"""From questions to a Result: ask them all at once, cut the completions where their form ends, judge each.

Asking and judging are apart, because one set of completions can be read strictly and leniently at no further cost.
The protocol is DeepSeek-R1's (appendix D.1): zero-shot, k samples at T 0.6 and top-p 0.95, pass@1 the mean over
questions of the share of right samples, cons@k the majority's answer; greedy beside it, since it needs one sample.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smallpress.engine.engine import Engine
from smallpress.engine.request import Completion, Request, SamplingParams
from smallpress.evaluate.result import Answer, Problem, Result, Sampling
from smallpress.run.errors import UserError
from smallpress.run.seeds import derive_seed
from smallpress.tasks.task import Example, Reading, Task
from smallpress.tokenizer.prompts import encode_prompt, prompt_form
from smallpress.tokenizer.streaming import StopStrings
from smallpress.tokenizer.tokenizer import Tokenizer

END = "</answer>"

Shown = Callable[[Example], tuple[str, str]]
"""The worked question and completion that the form "r1_zero_example" puts before a question."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Completions not yet judged: `texts[i]` are those of `examples[i]`, cut where their form ends.

    `opened[i]`: the prompt ended in <think>, so the completion begins inside the thinking.
    """

    examples: Sequence[Example]
    form: str
    sampling: Sampling
    texts: Sequence[Sequence[str]]
    n_tokens: Sequence[Sequence[int]]
    truncated: Sequence[Sequence[bool]]
    opened: Sequence[bool]
    seconds: float


def evaluate(
    engine: Engine,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    tasks: Mapping[str, Task],
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
) -> Answered:
    """Every question `sampling.samples` times, all in the engine at once, so that batch and prefix sharing are full."""
    if not examples:
        raise UserError("there is no question to ask", "give --n of at least 1, or a file with questions")
    stops = prompt_form(form).stops
    began = time.perf_counter()
    shown = shown if prompt_form(form).with_example else None
    prompts = [tuple(encode_prompt(tokenizer, form, one.prompt, shown and shown(one))) for one in examples]
    stoppers = [StopStrings(tokenizer, stops) for _ in range(len(examples) * sampling.samples)]
    asked = [(prompt, one, i) for prompt, one in zip(prompts, examples, strict=True) for i in range(sampling.samples)]
    requests = [
        Request(prompt, _params(sampling, one, i), tokenizer.eos_ids, stopper, group=(one.family, one.key))
        for (prompt, one, i), stopper in zip(asked, stoppers, strict=True)
    ]
    completions = _run(engine, requests, on_answer)
    texts = [_text(stopper) for stopper in stoppers]
    k = sampling.samples
    rows = [slice(i, i + k) for i in range(0, len(completions), k)]
    return Answered(
        examples=examples,
        form=form,
        sampling=sampling,
        texts=[texts[row] for row in rows],
        n_tokens=[[len(one.ids) for one in completions[row]] for row in rows],
        truncated=[[one.finish_reason == "length" for one in completions[row]] for row in rows],
        opened=[tokenizer.decode(prompt[-8:]).rstrip().endswith("<think>") for prompt in prompts],
        seconds=time.perf_counter() - began,
    )


def judge(answered: Answered, tasks: Mapping[str, Task], reading: Reading, model: str) -> Result:
    """Each completion by its task's checker. A checker that raises is a fault of ours, not a wrong answer."""
    problems = []
    for one, texts, n_tokens, truncated, opened in zip(
        answered.examples, answered.texts, answered.n_tokens, answered.truncated, answered.opened, strict=True
    ):
        task = tasks[one.family]
        answers = []
        for text, n, is_truncated in zip(texts, n_tokens, truncated, strict=True):
            verdict = task.check(one, text, reading, opened)
            answers.append(
                Answer(
                    text=text,
                    answer=verdict.answer,
                    correct=verdict.correct,
                    well_formed=verdict.well_formed,
                    reason=verdict.reason,
                    n_tokens=n,
                    truncated=is_truncated,
                )
            )
        problems.append(
            Problem(
                key=one.key,
                family=one.family,
                level=one.level,
                steps=one.meta.get("steps"),
                prompt=one.prompt,
                reference=one.reference,
                answers=tuple(answers),
            )
        )
    return Result.of(model, answered.form, reading, answered.sampling, problems, answered.seconds)


def _text(stopper: StopStrings) -> str:
    """The completion up to its form's end: the closing tag belongs to it, an invented next turn does not."""
    stopper.flush()
    return stopper.text_before_stop + (END if stopper.stopped_by == END else "")


def _params(sampling: Sampling, example: Example, i: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=derive_seed("evaluate", sampling.seed, example.family, example.key, i),
    )


def _run(engine: Engine, requests: Sequence[Request], on_answer: Callable[[], None]) -> list[Completion]:
    """`engine.generate`, telling `on_answer` of each completion's end; nothing is left behind on an error or Ctrl-C."""
    order: list[int] = []
    done: dict[int, Completion] = {}
    try:
        for request in requests:
            order.append(engine.submit(request))
        while len(done) < len(order):
            for piece in engine.step():
                if piece.completion is not None:
                    done[piece.request_id] = piece.completion
                    on_answer()
    finally:
        for request_id in order:
            engine.cancel(request_id)
    return [done[request_id] for request_id in order]
