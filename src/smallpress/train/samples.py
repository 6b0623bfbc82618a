"""Conversations -> token ids and which of them are trained on, through the model's own chat template.

A template writes turns, but only ids can be masked. So each conversation is rendered again up to every answer: where
the whole begins with that prompt, the answer is what follows it, as far as the token that ends the turn. Templates that
rewrite earlier turns (they drop old thinking) do not begin so; then every answer is a sample of its own, its prompt
rendered by the template and the answer as the model itself writes it, ended by its end token.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from smallpress.corpus.conversations import Conversation, Message
from smallpress.run.errors import UserError
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.control import unused_mark
from smallpress.tokenizer.prompts import encode_prompt
from smallpress.tokenizer.thinking import CLOSE, OPEN, opens_thinking
from smallpress.tokenizer.tokenizer import Tokenizer

Form = Literal["auto", "chat", "plain", "r1_zero"]
TrainOn = Literal["answers", "last_answer", "everything"]

PLAIN_JOINT = "\n\n"
REASONING = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True, slots=True)
class Sample:
    """`loss_mask` True = trained on: the model learns to say this token after those before it."""

    ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]

    @property
    def n_trained(self) -> int:
        """The first token has nothing before it from which it could be predicted."""
        return sum(self.loss_mask[1:])


@dataclass(slots=True)
class Census:
    """What became of the conversations read."""

    n_conversations: int = 0
    n_cut: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Sampler:
    """Makes samples of at most `max_tokens` tokens; `census` counts what was read, cut and dropped, and why.

    auto: chat where the model has a template, else plain. plain: the texts as they stand, the answer ended by the end
    token. r1_zero: the first question in that prompt form, and its answer.
    """

    def __init__(
        self, tokenizer: Tokenizer, form: Form, train_on: TrainOn, max_tokens: int, too_long: Literal["drop", "cut"]
    ):
        self.tokenizer, self.train_on, self.max_tokens, self.too_long = tokenizer, train_on, max_tokens, too_long
        self.form = form if form != "auto" else "plain" if tokenizer.chat_template is None else "chat"
        ends = tokenizer.eos_ids
        self.end_id = tokenizer.eos_id if tokenizer.eos_id is not None else min(ends, default=None)
        self.census = Census()

    def samples(self, conversations: Iterable[Conversation]) -> list[Sample]:
        made = []
        for conversation in conversations:
            self.census.n_conversations += 1
            made += [kept for sample in self.all_of(conversation) if (kept := self._fitting(sample)) is not None]
        return made

    def all_of(self, conversation: Conversation) -> list[Sample]:
        """The samples of one conversation, whatever their length."""
        messages = list(conversation.messages)
        while messages and messages[-1]["role"] != "assistant":
            messages.pop()  # nothing answers it
        if not messages or not any(_said(message) for message in messages if message["role"] == "assistant"):
            self.census.dropped["no answer"] += 1
            return []
        if self.form == "chat":
            return self._chat(messages)
        if self.form == "plain":
            return [self._plain(messages, conversation.plain)]
        return self._r1_zero(messages)

    def _fitting(self, sample: Sample) -> Sample | None:
        if len(sample.ids) > self.max_tokens:
            if self.too_long == "drop":
                self.census.dropped[f"over {self.max_tokens} tokens"] += 1
                return None
            sample = Sample(sample.ids[: self.max_tokens], sample.loss_mask[: self.max_tokens])
            if sample.n_trained:
                self.census.n_cut += 1
        if not sample.n_trained:
            self.census.dropped["nothing to train on within its length"] += 1
            return None
        return sample

    def _chat(self, messages: Sequence[Message]) -> list[Sample]:
        whole = encode_chat(self.tokenizer, messages, add_generation_prompt=False)
        if self.train_on == "everything":
            return [Sample(tuple(whole), (True,) * len(whole))]
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant" and _said(message)]
        if self.train_on == "last_answer":
            turns = turns[-1:]
        mask = [False] * len(whole)
        for turn in turns:
            span = self._answer_span(messages, turn, whole)
            if span is None:
                return [self._turn(messages, i) for i in turns]
            mask[span[0] : span[1]] = [True] * (span[1] - span[0])
        return [Sample(tuple(whole), tuple(mask))]

    def _answer_span(self, messages: Sequence[Message], turn: int, whole: list[int]) -> tuple[int, int] | None:
        """Where the answer of this turn stands in the whole, its end token included; None where it cannot be told."""
        prompt = encode_chat(self.tokenizer, messages[:turn])
        until = whole
        if turn + 1 < len(messages):
            until = encode_chat(self.tokenizer, messages[: turn + 1], add_generation_prompt=False)
        if whole[: len(prompt)] != prompt or whole[: len(until)] != until:
            return None
        ends = [i for i in range(len(prompt), len(until)) if until[i] in self.tokenizer.eos_ids]
        return (len(prompt), ends[-1] + 1) if ends else None

    def _turn(self, messages: Sequence[Message], turn: int) -> Sample:
        prompt = encode_chat(self.tokenizer, messages[:turn])
        return self._continued(prompt, self._own_words(messages[turn], opened=self._opens_thinking(prompt)))

    def _opens_thinking(self, prompt: list[int]) -> bool:
        return opens_thinking(self.tokenizer.decode(prompt[-8:], skip_special=False))

    def _own_words(self, message: Message, opened: bool) -> str:
        """The answer as the model writes it, thinking first; `opened`: the prompt has written the opening tag."""
        reasoning = next((message[key] for key in REASONING if isinstance(message.get(key), str)), None)
        text = message["content"]
        if reasoning and OPEN not in text:
            text = f"{OPEN}\n{reasoning.strip()}\n{CLOSE}\n\n{text}"
        return text.lstrip().removeprefix(OPEN).removeprefix("\n") if opened else text

    def _plain(self, messages: Sequence[Message], as_they_stand: bool) -> Sample:
        """All but the last answer is the prompt; texts of a chat have an empty line between them."""
        texts = [message["content"] for message in messages[:-1] if message["content"]]
        asked = "".join(texts) if as_they_stand else "".join(text + PLAIN_JOINT for text in texts)
        prompt = self.tokenizer.encode(asked)
        if self.tokenizer.adds_bos and self.tokenizer.bos_id is not None:
            prompt = [self.tokenizer.bos_id, *prompt]
        sample = self._continued(prompt, self._own_words(messages[-1], opened=False))
        return Sample(sample.ids, (True,) * len(sample.ids)) if self.train_on == "everything" else sample

    def _r1_zero(self, messages: Sequence[Message]) -> list[Sample]:
        roles = [message["role"] for message in messages if message["role"] != "system"]
        if roles != ["user", "assistant"]:
            self.census.dropped["more than a question and its answer, which is what r1_zero has"] += 1
            return []
        question, answer = (message for message in messages if message["role"] != "system")
        prompt = encode_prompt(self.tokenizer, "r1_zero", question["content"])
        return [self._continued(prompt, " " + self._own_words(answer, opened=False).lstrip())]

    def _continued(self, prompt: list[int], answer: str) -> Sample:
        """The answer's tags of thinking are control tokens where the vocabulary has them so; nothing else in it is."""
        if self.end_id is None:
            raise UserError("the model's tokenizer names no token that ends a text", "give it an eos_token")
        controls, mark = self.tokenizer.controls, unused_mark([answer])
        pieces = controls.split(controls.guard(answer, mark, keep=(OPEN, CLOSE)))
        words = (piece if isinstance(piece, int) else piece.replace(mark, "") for piece in pieces)
        ids = [*self.tokenizer.encode_pieces([*prompt, *words]), self.end_id]
        return Sample(tuple(ids), tuple(i >= len(prompt) for i in range(len(ids))))


def _said(message: Message) -> bool:
    return bool(message["content"].strip() or message.get("tool_calls"))
