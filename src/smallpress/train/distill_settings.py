"""The settings of distillation; what a recipe of `smallpress distill` says."""

from typing import Any, Literal

from pydantic import Field, field_validator

from smallpress.corpus.filters import Readable
from smallpress.run.bill import EndpointSettings
from smallpress.run.settings import Settings
from smallpress.tasks.mixture import readable
from smallpress.train.samples import Form
from smallpress.train.settings import SFTSettings, TrainSettings


class Filters(Settings):
    """What an answer must be; see corpus/filters.py."""

    correct: bool = True  # by the task's own checker; questions of `prompts` have none
    well_formed: bool = False  # thinking and answer, each in its tags and nothing else; where a program checks
    repeated: float = Field(0.3, ge=0, le=1)  # largest share of runs of four words that repeat
    other_scripts: float = Field(0.05, ge=0, le=1)  # largest share of letters of another script
    paragraph_words: int = Field(0, ge=0)  # most words of a paragraph; 0: any
    code_blocks: bool = True  # allowed
    measured: tuple[str, ...] = ()  # files whose texts no question and no answer may share ten words with

    @property
    def readable(self) -> Readable:
        return Readable(self.repeated, self.other_scripts, self.paragraph_words, self.code_blocks)


class Divergence(Settings):
    """Learning the teacher's probabilities; teacher and student share a tokenizer.

    forward KL(teacher, student) covers all the teacher might say, reverse KL(student, teacher) keeps to what it
    surely says. `top_k` tokens are told apart, the rest is one event; 0: all.
    """

    direction: Literal["forward", "reverse"] = "forward"
    top_k: int = Field(64, ge=0)
    temperature: float = Field(1.0, gt=0)  # of both
    likelihood: float = Field(0.0, ge=0)  # weight of the answer's own likelihood beside it


class DistillSettings(TrainSettings):
    """Answers of a teacher, checked and filtered, then learned."""

    teacher: str  # a model, or the address of an endpoint: http://.../v1
    endpoint: EndpointSettings = EndpointSettings.model_validate({})
    method: Literal["answers", "logits", "on_policy"] = "answers"
    divergence: Divergence = Divergence.model_validate({})

    # what is asked
    tasks: tuple[str, ...] = ()  # "family", "family:level" or "family:first-last"
    prompts: tuple[str, ...] = ()  # files of conversations whose last question is asked
    n_questions: int = Field(500, ge=1)  # of the tasks
    answers_each: int = Field(1, ge=1)
    keep_each: int = Field(1, ge=1)  # right answers of one question that are learned
    teacher_form: Literal["chat", "r1_zero", "r1_zero_example"] = "chat"
    reading: Literal["strict", "lenient"] = "lenient"
    temperature: float = Field(0.6, ge=0, le=2)
    top_p: float = Field(0.95, gt=0, le=1)
    answer_tokens: int = Field(1024, ge=1)
    ask_minutes: float | None = Field(None, gt=0)  # then the asking ends, and what is answered is learned
    filters: Filters = Filters.model_validate({})

    # what is learned beside it
    others: tuple[str, ...] = ()  # files of conversations, learned as they are
    others_share: float = Field(0.25, ge=0, lt=1)  # of all that is learned, as far as there are so many

    # how it is learned
    form: Form = "auto"
    max_tokens: int = Field(2048, ge=2)  # of a sample
    eval_n: int = Field(32, ge=0)

    @field_validator("tasks")
    @classmethod
    def _readable(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return readable(tasks)

    @property
    def is_remote(self) -> bool:
        return self.teacher.startswith(("http://", "https://"))

    def sft(self, data: str) -> SFTSettings:
        """The training on the answers in the file `data`."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in TrainSettings.model_fields}
        return SFTSettings(**shared, data=(data,), eval_n=self.eval_n, form=self.form, max_tokens=self.max_tokens)

    def model_post_init(self, _: object) -> None:
        if not self.tasks and not self.prompts:
            raise ValueError("there is nothing to ask: give tasks or prompts")
        if self.is_remote and self.method != "answers":
            raise ValueError(f"method={self.method} needs the teacher's probabilities: give a model, not an address")
        if self.is_remote and self.teacher_form != "chat":
            raise ValueError(f"teacher_form={self.teacher_form} is for a local teacher")
        if self.method == "on_policy" and self.lora is not None:
            raise ValueError("method=on_policy trains all weights: leave out lora")
