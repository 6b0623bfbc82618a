"""What an evaluation found, as one frozen value and one JSON file.

The file is the `Result` as pydantic writes it, `schema` first: a summary over all problems, the same by family, by
level ("chained_sum:3") and by steps ("one step", "more steps"), then every problem with every answer. A later version
that changes a field's meaning takes a new `schema`; `Result.model_json_schema()` describes the present one.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from smallpress.evaluate.intervals import Estimate, Frozen, majority, mean_share, pass_at_k
from smallpress.evaluate.rating import Rating, rate
from smallpress.run.atomic import write_file
from smallpress.run.errors import UserError, disk_error
from smallpress.tasks.example import Example, Reading
from smallpress.tasks.maths import same

RESULT_SCHEMA: Final = "smallpress.evaluation/1"
BOOTSTRAP_SEED = 0
"""Fixed, so that a file's intervals can be computed again from its answers."""


class Sampling(Frozen):
    """How answers are drawn: temperature 0 is greedy, with one answer a problem; else `samples` of them.

    The draw of a problem's i-th sample depends on `seed`, the problem's key and i alone. After `thinking` tokens of
    thinking, where it is given, the model is made to answer.
    """

    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)
    thinking: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _greedy_has_one_answer(self) -> Self:
        if self.greedy and self.samples > 1:
            raise UserError(f"{self.samples} samples at temperature 0 would all be alike", "raise the temperature")
        return self

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    def __str__(self) -> str:
        budget = f", {self.thinking} tokens to think" if self.thinking is not None else ""
        if self.greedy:
            return f"greedy{budget}"
        many = f"{self.samples} sample{'s' * (self.samples > 1)}"
        return f"{many} at T {self.temperature:g}, top-p {self.top_p:g}{budget}"


class Answer(Frozen):
    """One completion with its verdict. `truncated`: it reached max_tokens or the context's end.

    `n_thinking` of its tokens are thinking; `error`: the checker came to no finding, and `correct` is False.
    """

    text: str
    answer: str | None
    correct: bool
    well_formed: bool
    reason: str
    n_tokens: int
    truncated: bool
    n_thinking: int = 0
    error: bool = False


class Problem(Frozen):
    """`steps` is how many steps of reasoning the problem needs, `rating` how hard it is on Codeforces' scale; None
    where the source does not say. `seen`: whether the corpus that was searched holds it.
    """

    key: str
    family: str
    level: int
    steps: int | None
    prompt: str
    reference: str
    answers: tuple[Answer, ...]
    rating: int | None = None
    seen: bool | None = None

    @property
    def share(self) -> float:
        return sum(answer.correct for answer in self.answers) / len(self.answers)


class Summary(Frozen):
    """Over a set of problems.

    accuracy       pass@1: the mean over problems of the share of right answers; for a greedy evaluation greedy accuracy
    pass_at        k -> unbiased pass@k, for k = 1, 2, 4 .. up to the samples
    consensus      cons@k: the share of problems whose most common answer is right, where there is more than one sample
    mean_tokens    of a completion, the id that ended it included
    mean_thinking  of a completion, the tokens that were thinking
    error_share    of answers on which the checker came to no finding; they count as not right, and a run with more than
                   one in a hundred of them ends with an error
    """

    accuracy: Estimate
    pass_at: dict[int, float]
    consensus: Estimate | None
    mean_tokens: float
    truncated_share: float
    well_formed_share: float
    mean_thinking: float = 0.0
    error_share: float = 0.0

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Self:
        answers = [answer for problem in problems for answer in problem.answers]
        samples = min(len(problem.answers) for problem in problems)
        powers = [2**i for i in range(samples.bit_length())]
        return cls(
            accuracy=mean_share([problem.share for problem in problems], BOOTSTRAP_SEED),
            pass_at={k: _mean(_pass_at(problem, k) for problem in problems) for k in sorted({*powers, samples})},
            consensus=mean_share([_consensus(p) for p in problems], BOOTSTRAP_SEED) if samples > 1 else None,
            mean_tokens=_mean(answer.n_tokens for answer in answers),
            truncated_share=_mean(answer.truncated for answer in answers),
            well_formed_share=_mean(answer.well_formed for answer in answers),
            mean_thinking=_mean(answer.n_thinking for answer in answers),
            error_share=_mean(answer.error for answer in answers),
        )


class Result(Frozen):
    """One model, one prompt form, one way to sample and one way to read, over one set of problems.

    `by_length` groups problems by the mean length of their completions; `by_seen` by whether a corpus holds them;
    `rating` is there where the problems have difficulties; `checker` says what judged the answers.
    """

    schema_: Literal["smallpress.evaluation/1"] = Field(default=RESULT_SCHEMA, alias="schema")
    model: str
    form: str
    reading: Reading
    sampling: Sampling
    problem_set: str
    seconds: float
    n_tokens: int
    overall: Summary
    by_family: dict[str, Summary]
    by_level: dict[str, Summary]
    by_steps: dict[str, Summary]
    problems: tuple[Problem, ...]
    by_length: dict[str, Summary] = Field(default_factory=dict)
    by_seen: dict[str, Summary] = Field(default_factory=dict)
    rating: Rating | None = None
    checker: str = ""

    @classmethod
    def of(
        cls,
        model: str,
        form: str,
        reading: Reading,
        sampling: Sampling,
        problems: Sequence[Problem],
        seconds: float,
        checker: str = "",
    ) -> Self:
        """Summed up from the problems, of which there must be at least one."""
        return cls(
            model=model,
            form=form,
            reading=reading,
            sampling=sampling,
            problem_set=problem_set(problems),
            seconds=round(seconds, 3),
            n_tokens=sum(answer.n_tokens for problem in problems for answer in problem.answers),
            overall=Summary.of(problems),
            by_family=_grouped(problems, lambda problem: problem.family),
            by_level=_grouped(problems, lambda problem: f"{problem.family}:{problem.level}"),
            by_steps=_grouped([p for p in problems if p.steps is not None], steps_name),
            problems=tuple(problems),
            by_length=dict(sorted(_grouped(problems, _length_name).items(), key=lambda pair: int(pair[0].split()[2]))),
            by_seen=_grouped([p for p in problems if p.seen is not None], seen_name),
            rating=_rating([p for p in problems if p.rating is not None]),
            checker=checker,
        )

    @property
    def label(self) -> str:
        return f"{self.model}, {self.form}, {self.sampling}, {self.reading} reading"

    def metrics(self, prefix: str = "eval/") -> dict[str, float]:
        """For metrics.jsonl: accuracy, low and high overall and by family, length, form and truncation.

        Where all problems are of one family, its levels take the families' place.
        """
        one_family_of_levels = len(self.by_family) == 1 and len(self.by_level) > 1
        parts = self.by_level if one_family_of_levels else self.by_family
        values = {
            f"{prefix}mean_length": self.overall.mean_tokens,
            f"{prefix}well_formed": self.overall.well_formed_share,
            f"{prefix}truncated": self.overall.truncated_share,
        }
        for name, summary in {"": self.overall, **{f"{name}/": one for name, one in parts.items()}}.items():
            accuracy = summary.accuracy
            values |= {f"{prefix}{name}{end}": getattr(accuracy, at) for end, at in _LOGGED.items()}
        return values

    def save(self, path: str | Path) -> None:
        save_json(path, self)


_LOGGED = {"accuracy": "value", "low": "low", "high": "high"}
M = TypeVar("M", bound=BaseModel)


def save_json(path: str | Path, model: BaseModel) -> None:
    write_file(path, model.model_dump_json(by_alias=True, indent=1).encode() + b"\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """An evaluation's file as plain values. Raises UserError naming the file."""
    try:
        value = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON", "give a file that smallpress eval --out wrote") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not an evaluation", "give a file that smallpress eval --out wrote")
    return value


def validated(kind: type[M], value: dict[str, Any], path: str | Path) -> M:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path} is not an evaluation: {where}: {first['msg']}", "evaluate again") from error


def identity(question: Problem | Example) -> tuple[str, int, str, str, str]:
    """What makes it the same question to any model."""
    return question.family, question.level, question.key, question.prompt, question.reference


def problem_set(questions: Iterable[Problem | Example]) -> str:
    """A name for a set of questions, whatever their order: equal names, equal questions."""
    digest = blake2b(digest_size=16)
    for parts in sorted(map(identity, questions)):
        digest.update(json.dumps(parts).encode())
    return digest.hexdigest()


def steps_name(problem: Problem) -> str:
    return "one step" if problem.steps == 1 else "more steps"


def seen_name(problem: Problem) -> str:
    return "in the corpus" if problem.seen else "not in the corpus"


def _length_name(problem: Problem) -> str:
    """The mean length of a problem's completions, rounded up to a power of two."""
    mean = _mean(answer.n_tokens for answer in problem.answers)
    return f"up to {1 << max(0, ceil(mean) - 1).bit_length()} tokens"


def _rating(problems: Sequence[Problem]) -> Rating | None:
    shares = [problem.share for problem in problems]
    return rate([problem.rating or 0 for problem in problems], shares, BOOTSTRAP_SEED) if problems else None


def _grouped(problems: Sequence[Problem], name: Callable[[Problem], str]) -> dict[str, Summary]:
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(name(problem), []).append(problem)
    return {name: Summary.of(group) for name, group in groups.items()}


def _pass_at(problem: Problem, k: int) -> float:
    return pass_at_k(len(problem.answers), sum(answer.correct for answer in problem.answers), k)


def _consensus(problem: Problem) -> float:
    winner = majority([answer.answer for answer in problem.answers], same=lambda one, other: same(one, other) is True)
    return float(winner is not None and problem.answers[winner].correct)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
