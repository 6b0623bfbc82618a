"""Who is asked: a model on this machine, through the engine, or an endpoint."""

from collections.abc import Generator

from smallpress.engine.engine import Engine
from smallpress.engine.request import Request, SamplingParams
from smallpress.run.bill import Bill
from smallpress.run.endpoint import Client
from smallpress.run.seeds import derive_seed
from smallpress.tasks.worked import worked_example
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.prompts import ANSWER_TAGS, encode_prompt, prompt_form
from smallpress.tokenizer.streaming import StopStrings
from smallpress.tokenizer.thinking import OPEN, opens_thinking
from smallpress.tokenizer.tokenizer import Tokenizer
from smallpress.train.distill_settings import DistillSettings
from smallpress.train.gather import Answer, Question, with_thinking


class LocalTeacher:
    """The seed of each answer is its question and draw, so what a stopped run lacks is drawn as it would have been."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, settings: DistillSettings):
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.form = prompt_form(settings.teacher_form)

    def answers(self, asked: list[tuple[Question, int]]) -> Generator[tuple[int, Answer], None, None]:
        prompts = [self._prompt(question) for question, _ in asked]
        stoppers = [StopStrings(self.tokenizer, self.form.stops) for _ in asked]
        places: dict[int, int] = {}
        try:
            for place, (question, draw) in enumerate(asked):
                params = self._params(question, draw)
                request = Request(prompts[place], params, self.tokenizer.eos_ids, stoppers[place], group=question)
                places[self.engine.submit(request)] = place
            n_left = len(asked)
            while n_left:
                for piece in self.engine.step():
                    if piece.completion is not None:
                        place, n_left = places[piece.request_id], n_left - 1
                        done = piece.completion
                        text = self._text(stoppers[place], prompts[place])
                        yield place, Answer(text, done.finish_reason == "stop", done.n_prompt, len(done.ids))
        finally:
            for request_id in places:
                self.engine.cancel(request_id)

    def _prompt(self, question: Question) -> tuple[int, ...]:
        if self.form.name == "chat":
            return tuple(encode_chat(self.tokenizer, question.messages))
        shown = worked_example(question.example) if self.form.with_example else None
        return tuple(encode_prompt(self.tokenizer, self.form.name, question.messages[-1]["content"], shown))

    def _params(self, question: Question, draw: int) -> SamplingParams:
        settings, text = self.settings, str(question.messages[-1]["content"])
        seed = derive_seed(settings.seed, "teacher", text, draw)
        return SamplingParams(settings.answer_tokens, settings.temperature, settings.top_p, seed=seed)

    def _text(self, stopper: StopStrings, prompt: tuple[int, ...]) -> str:
        """The closing tag that ended it belongs to it, as does the opening one the prompt has said."""
        stopper.flush()
        text = stopper.text_before_stop + (ANSWER_TAGS[1] if stopper.stopped_by == ANSWER_TAGS[1] else "")
        opened = opens_thinking(self.tokenizer.decode(prompt[-8:], skip_special=False))
        return OPEN + text if opened else text


class RemoteTeacher:
    def __init__(self, client: Client, settings: DistillSettings):
        self.client, self.settings = client, settings
        self.bill = Bill(settings.endpoint)

    def answers(self, asked: list[tuple[Question, int]]) -> Generator[tuple[int, Answer], None, None]:
        settings = self.settings
        how = {
            "model": settings.endpoint.model,
            "max_tokens": settings.answer_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        bodies = ({**how, "messages": list(question.messages)} for question, _ in asked)
        for place, reply in self.bill.paid_for(self.client, bodies):
            text = with_thinking(reply.text, reply.thinking)
            yield place, Answer(text, reply.finished, reply.prompt_tokens, reply.completion_tokens)
