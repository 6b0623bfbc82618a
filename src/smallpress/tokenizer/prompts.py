"""The forms in which a question is put to a model.

    chat             the model's own template
    r1_zero          plain text for a model without one: a conversation in which the assistant thinks, then answers
    r1_zero_example  the same after one worked example, for models too small to take up the tags from words alone

The structure of r1_zero is that of DeepSeek-R1 (arXiv 2501.12948, table 1), which has no hint on how to think, so that
what appears in the thinking is what training brought. The prompt ends before the tag: opening it is the model's part.
"""

from dataclasses import dataclass

from smallpress.run.errors import UserError
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.control import unused_mark
from smallpress.tokenizer.thinking import CLOSE, OPEN, split_thinking
from smallpress.tokenizer.tokenizer import Tokenizer

R1_ZERO = (
    "This is a conversation between User and Assistant. User asks a question and Assistant answers it. "
    "Assistant first thinks about how to get to the answer, and only then gives it to User. "
    "The thinking stands between <think> and </think>, the answer between <answer> and </answer>: "
    "<think> thinking comes here </think> <answer> answer comes here </answer>"
)
NEXT_TURN = "\nUser:"
ANSWER_TAGS = ("<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class PromptForm:
    """`stops` end a completion; `opened`: the prompt ends inside an open `<think>`, which the completion then lacks."""

    name: str
    stops: tuple[str, ...] = ()
    opened: bool = False
    with_example: bool = False

    @property
    def tags_answer(self) -> bool:
        """Whether the answer stands in tags of its own."""
        return ANSWER_TAGS[1] in self.stops

    def checked_text(self, completion: str) -> str:
        """What a checker reads: the completion up to a turn the model made up, with the tag the prompt opened.

        >>> PROMPT_FORMS["r1_zero"].checked_text(" <answer> 4 </answer>\\nUser: and 3 + 3?")
        ' <answer> 4 </answer>'
        """
        if NEXT_TURN in self.stops:
            completion = completion.partition(NEXT_TURN)[0]
        return OPEN + completion if self.opened else completion


PROMPT_FORMS = {
    form.name: form
    for form in (
        PromptForm("chat"),
        PromptForm("r1_zero", stops=(ANSWER_TAGS[1], NEXT_TURN)),
        PromptForm("r1_zero_example", stops=(ANSWER_TAGS[1], NEXT_TURN), with_example=True),
    )
}


def summary_of(completion: str) -> str:
    """What a completion tells its reader: all but the thinking, without the answer's tags. "" where it never ends.

    >>> summary_of("<think> 2 + 2 </think> <answer> 4 </answer>"), summary_of("hm </think> 4"), summary_of("<think> 4")
    ('4', '4', '')
    """
    closing, opening = completion.find(CLOSE), completion.find(OPEN)
    opened = closing >= 0 and (opening < 0 or closing < opening)  # by the prompt
    _, summary = split_thinking(completion, opened)
    for tag in ANSWER_TAGS:
        summary = summary.replace(tag, " ")
    return summary.strip()


def prompt_form(name: str) -> PromptForm:
    """The form of that name, or UserError."""
    if name not in PROMPT_FORMS:
        raise UserError(f"there is no prompt form {name!r}", f"use one of: {', '.join(PROMPT_FORMS)}")
    return PROMPT_FORMS[name]


def encode_prompt(
    tokenizer: Tokenizer, form: str, question: str, example: tuple[str, str] | None = None, system: str | None = None
) -> list[int]:
    """The ids of a question in a form, bos included where the model expects it.

    `example` is a worked (question, completion), for r1_zero_example and no other form; `system` is for chat.
    """
    chosen = prompt_form(form)
    if chosen.with_example != (example is not None):
        raise UserError(
            f"the prompt form {form} is given {'no' if example is None else 'an'} example",
            "the form with a worked example is r1_zero_example, and no other takes one",
        )
    if form == "chat":
        messages = [{"role": "system", "content": system}] if system is not None else []
        return encode_chat(tokenizer, [*messages, {"role": "user", "content": question}])
    if system is not None:
        raise UserError(f"the prompt form {form} has no system text", "leave it out, or use the form chat")
    return _encode_r1_zero(tokenizer, question, example)


def _encode_r1_zero(tokenizer: Tokenizer, question: str, example: tuple[str, str] | None) -> list[int]:
    """Our own text and the example's completion may hold control tokens (some vocabularies have `<think>`)."""
    mark = unused_mark([question, *(example or ())])

    def turn(asked: str, completion: str = "") -> str:
        return f"User: {tokenizer.controls.guard(asked, mark)}\nAssistant:{completion}"

    worked = f"{turn(*example)}\n\n" if example else ""
    pieces = tokenizer.controls.split(f"{R1_ZERO}\n\n{worked}{turn(question)}")
    ids = tokenizer.encode_pieces(piece if isinstance(piece, int) else piece.replace(mark, "") for piece in pieces)
    return [tokenizer.bos_id, *ids] if tokenizer.adds_bos and tokenizer.bos_id is not None else ids
